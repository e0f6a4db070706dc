"""Counts, before a run trains, the golden answers that it can use: those short enough and right by its own reward."""

from dataclasses import dataclass

import numpy as np
import torch.distributed as dist

from gcpo_mcore.base.collectives import from_every_rank
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.program import command
from gcpo_mcore.data.dataset import Loaded
from gcpo_mcore.rewarding.grader import Grader


@dataclass(frozen=True)
class GoldenCount:
    """The golden answers of one source: how many, those over the length limit, and of those graded the rejected."""

    given: int
    too_long: int
    graded: int
    rejected: int

    def __str__(self) -> str:
        return f"{self.graded - self.rejected:,} of {self.graded:,} graded are right"


def count_golden(
    train: dict[str, Loaded], grader: Grader, longest: int, max_rows: int | None
) -> dict[str, GoldenCount]:
    """Grades the golden answers of every source, the first `max_rows` of each (None: all), shared out over the ranks.

    `longest` is the length limit of a response in tokens. The same on every rank. UserError if none can be used.
    """
    counts = {name: _count(loaded, grader, longest, max_rows) for name, loaded in train.items()}
    all_graded = sum(c.given - c.too_long for c in counts.values()) == sum(c.graded for c in counts.values())
    if all_graded and all(c.graded == c.rejected for c in counts.values()):
        found = "; ".join(
            f"{name}: {c.given:,}, of which {c.too_long:,} are longer than "
            f"rollout.sampling.max_response_tokens={longest} and the reward rejects {c.rejected:,}"
            for name, c in counts.items()
        )
        raise UserError(f"no golden answer can be used: {found} ({command('prepare')} check names them)")
    return counts


def _count(loaded: Loaded, grader: Grader, longest: int, max_rows: int | None) -> GoldenCount:
    tokens = loaded.prompts.golden_tokens()
    chosen = np.flatnonzero((tokens > 0) & (tokens <= longest))[:max_rows].tolist()
    prompts = [loaded.prompts[place] for place in chosen[dist.get_rank() :: dist.get_world_size()]]
    mine = [(p, p.golden_sample()) for p in prompts]
    grader.grade(mine)
    rejected = from_every_rank(sum(not sample.is_accurate for _, sample in mine))
    return GoldenCount(loaded.with_golden, loaded.golden_over(longest), len(chosen), sum(rejected))

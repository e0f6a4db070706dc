"""Counts, before a run trains, the golden answers that it can use: those short enough and right by its own reward; and
measures how many of them sampling reaches."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from gcpo_mcore.base.collectives import from_every_rank
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.program import command
from gcpo_mcore.batch import Batch
from gcpo_mcore.data.dataset import Loaded
from gcpo_mcore.objective.golden_tokens import low_quantile
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.samples import Facts, Group, Sample

MEASURED = 64  # golden answers of a source: enough for a share, and a single small pass


@dataclass(frozen=True)
class GoldenCount:
    """The golden answers of one source: how many, those over the length limit, and of those graded the rejected."""

    given: int
    too_long: int
    graded: int
    rejected: int

    def __str__(self) -> str:
        return f"{self.graded - self.rejected:,} of {self.graded:,} graded are right"


@dataclass(frozen=True)
class Reach:
    """Of a source's first golden answers how many were measured and reachable, and the mean of their worst tokens."""

    measured: int
    reachable: int
    worst_logp: float

    def __str__(self) -> str:
        return f"{self.reachable:,} of {self.measured:,} (worst token {self.worst_logp:.1f} nats)"


Score = Callable[[Batch], torch.Tensor]  # this rank's rows -> [b, T] log-probs
Deal = Callable[[list[Group[Facts]], list[Sample]], Batch]  # groups, samples of rank 0 -> this rank's rows


def measure_reach(
    train: dict[str, Loaded], score: Score, deal: Deal, longest: int, bound: float, max_rows: int | None
) -> dict[str, Reach]:
    """The reach of each source's first golden answers, at most `max_rows` or MEASURED, by source.

    bound  in nats: an answer with a token below it is out of reach
    A collective over all ranks.
    """
    rows = MEASURED if max_rows is None else min(MEASURED, max_rows)
    found = {name: _reach(loaded, score, deal, longest, bound, rows) for name, loaded in train.items()}
    return {name: reach for name, reach in found.items() if reach is not None}


def _reach(loaded: Loaded, score: Score, deal: Deal, longest: int, bound: float, rows: int) -> Reach | None:
    """None if the source has no golden answer that can be used."""
    tokens = loaded.prompts.golden_tokens()
    prompts = [loaded.prompts[place] for place in np.flatnonzero((tokens > 0) & (tokens <= longest))[:rows].tolist()]
    if not prompts:
        return None
    store = [prompt.golden_sample() for prompt in prompts]
    for place, sample in enumerate(store):
        sample.home = (0, place)
    groups: list[Group[Facts]] = [Group(prompt, [sample]) for prompt, sample in zip(prompts, store, strict=True)]
    batch = deal(groups, store)
    worst = batch.everywhere(low_quantile(score(batch), batch.mask, 0.0))
    return Reach(len(worst), int((worst >= bound).sum()), float(worst.double().mean()))


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

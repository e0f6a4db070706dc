"""Shares the prompts of a step out over all ranks, grades each rank's share there, and tells all ranks the facts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.distributed as dist

from gcpo_mcore.base.collectives import from_every_rank
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Engine, Job, Request
from gcpo_mcore.rollout.sampling import request_seed
from gcpo_mcore.samples import Facts, Fragment, Group, Prompt, Sample

# A graded sample as it is told to the other ranks: the number of its group, its place in its rank's store, its facts.
FACTS = np.dtype(
    [
        ("group", np.int32),
        ("place", np.int32),
        ("index", np.int32),
        ("tokens", np.int32),
        ("weight_version", np.int32),
        ("reward", np.float64),
        ("truncated", np.bool_),
        ("is_golden", np.bool_),
        ("is_accurate", np.bool_),
        ("has_routing", np.bool_),
    ]
)
TOLD = [name for name in FACTS.names or () if name not in ("group", "place")]


@dataclass
class Started:
    """Work that the engine has: its prompts, and whose prompt each of this rank's requests is."""

    prompts: list[Prompt]
    places: list[int]
    job: Job
    enough: int | None


class Sampler:
    """Prompts in, graded groups out: their facts on every rank, their samples where they were made."""

    def __init__(self, engine: Engine, grader: Grader, seed: int):
        self.engine, self.grader, self.seed = engine, grader, seed

    def generate(self, prompts: list[Prompt], samples_per_prompt: int, sampling: Sampling, key: str) -> list[Fragment]:
        """This rank's share of the groups, still ungraded: `key` names the occasion ('train|12|0')."""
        return self.finish(self.begin(prompts, samples_per_prompt, sampling, key))[0]

    def begin(
        self, prompts: list[Prompt], samples_per_prompt: int, sampling: Sampling, key: str, enough: int | None = None
    ) -> Started:
        """Gives the engine this rank's share of the work, of which `enough` whole groups will do.

        Responses of all prompts are dealt in one row over the ranks, so that a group may lie on several.
        """
        world, rank = dist.get_world_size(), dist.get_rank()
        work = len(prompts) * samples_per_prompt
        per_rank = -(-work // world)
        mine = range(rank * per_rank, min((rank + 1) * per_rank, work))
        places = [divmod(number, samples_per_prompt) for number in mine]
        requests = [Request(prompts[p], i, request_seed(key, self.seed, p, prompts[p].id, i)) for p, i in places]
        return Started(prompts, [p for p, _ in places], self.engine.begin(requests, sampling, enough), enough)

    def finish(self, started: Started) -> tuple[list[Fragment], list[Prompt]]:
        """This rank's share of what was begun; the prompts left unfinished."""
        fragments = [Fragment(prompt, []) for prompt in started.prompts]
        open_: set[int] = set()
        for p, sample in zip(started.places, self.engine.finish(started.job), strict=True):
            if sample is None:
                open_.add(p)
            else:
                fragments[p].samples.append(sample)
        if started.enough is not None:
            open_ = set().union(*from_every_rank(open_))
            whole = [p for p in range(len(fragments)) if p not in open_]
            open_ = set(range(len(fragments))) - set(whole[: started.enough])
        left = [fragments[p].prompt for p in sorted(open_)]
        return [fragment for p, fragment in enumerate(fragments) if p not in open_], left

    def add_golden(self, fragments: list[Fragment], max_response_tokens: int) -> None:
        """Puts the golden answer beside the fragments whose this rank grades; one too long counts as missing."""
        world, rank = dist.get_world_size(), dist.get_rank()
        for number, fragment in enumerate(fragments):
            ids = fragment.prompt.golden_ids
            if number % world == rank and ids is not None and len(ids) <= max_response_tokens:
                fragment.golden = fragment.prompt.golden_sample()

    def grade(self, fragments: list[Fragment], store: list[Sample]) -> tuple[list[Group[Facts]], dict[str, float]]:
        """Grades this rank's samples and golden answers and adds them to its `store`.

        Returns the groups' facts, samples in order, and metrics summed over the ranks; both the same on every rank.
        """
        graded = [
            (number, sample)
            for number, fragment in enumerate(fragments)
            for sample in [*fragment.samples, *([fragment.golden] if fragment.golden else [])]
        ]
        metrics = self.grader.grade([(fragments[number].prompt, sample) for number, sample in graded])
        told = np.zeros(len(graded), FACTS)
        for row, (number, sample) in enumerate(graded):
            told[row] = (number, len(store), *(getattr(sample, name) for name in TOLD))
            store.append(sample)
        groups: list[Group[Facts]] = [Group(fragment.prompt, []) for fragment in fragments]
        shares = from_every_rank((told, metrics))
        for rank, (rows, _) in enumerate(shares):
            listed: list[Any] = rows.tolist()
            for number, place, *told_of in listed:
                facts = _facts((rank, place), *told_of)
                if facts.is_golden:
                    groups[number].golden = facts
                else:
                    groups[number].samples.append(facts)
        for group in groups:
            group.samples.sort(key=lambda facts: facts.index)
        return groups, {name: sum(m.get(name, 0.0) for _, m in shares) for name in metrics}

    def gather(self, fragments: list[Fragment]) -> list[Group[Sample]]:
        """The groups with all their samples, on every rank: for evaluations, whose answers are written down."""
        groups: list[Group[Sample]] = [Group(fragment.prompt, []) for fragment in fragments]
        for share in from_every_rank([fragment.samples for fragment in fragments]):
            for group, samples in zip(groups, share, strict=True):
                group.samples += samples
        for group in groups:
            group.samples.sort(key=lambda sample: sample.index)
        return groups


def _facts(
    home: tuple[int, int],
    index: int,
    tokens: int,
    weight_version: int,
    reward: float,
    truncated: bool,
    is_golden: bool,
    is_accurate: bool,
    has_routing: bool,
) -> Facts:
    """The facts of a row of FACTS."""
    return Facts(
        index,
        tokens=tokens,
        weight_version=weight_version,
        reward=reward,
        truncated=truncated,
        is_golden=is_golden,
        is_accurate=is_accurate,
        has_routing=has_routing,
        home=home,
    )

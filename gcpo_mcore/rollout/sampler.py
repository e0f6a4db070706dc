"""Shares the prompts of a step out over all ranks, grades each rank's share there, and gathers the groups."""

from dataclasses import dataclass

import torch.distributed as dist

from gcpo_mcore.base.collectives import from_every_rank
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Engine, Job, Request
from gcpo_mcore.rollout.sampling import request_seed
from gcpo_mcore.samples import Group, Prompt


@dataclass
class Started:
    """Work that the engine has: its prompts, and whose prompt each of this rank's requests is."""

    prompts: list[Prompt]
    places: list[int]
    job: Job
    enough: int | None


class Sampler:
    """Prompts in, graded groups out, the same on every rank."""

    def __init__(self, engine: Engine, grader: Grader, seed: int):
        self.engine, self.grader, self.seed = engine, grader, seed

    def generate(self, prompts: list[Prompt], samples_per_prompt: int, sampling: Sampling, key: str) -> list[Group]:
        """Groups of this rank's share of the work, still ungraded: `key` names the occasion ('train|12|0')."""
        return self.finish(self.begin(prompts, samples_per_prompt, sampling, key))[0]

    def begin(
        self, prompts: list[Prompt], samples_per_prompt: int, sampling: Sampling, key: str, enough: int | None = None
    ) -> Started:
        """Gives the engine this rank's share of the work, of which `enough` whole groups will do.

        Responses of all prompts are dealt in one row over the ranks, so that a group may lie on several.
        """
        world, rank = dist.get_world_size(), dist.get_rank()
        work = [(p, i) for p in range(len(prompts)) for i in range(samples_per_prompt)]
        per_rank = -(-len(work) // world)
        mine = work[rank * per_rank : (rank + 1) * per_rank]
        requests = [Request(prompts[p], i, request_seed(key, self.seed, p, prompts[p].id, i)) for p, i in mine]
        return Started(prompts, [p for p, _ in mine], self.engine.begin(requests, sampling, enough), enough)

    def finish(self, started: Started) -> tuple[list[Group], list[Prompt]]:
        """The groups of what was begun, with this rank's share of the samples; the prompts left unfinished."""
        groups = [Group(prompt, []) for prompt in started.prompts]
        open_: set[int] = set()
        for p, sample in zip(started.places, self.engine.finish(started.job), strict=True):
            if sample is None:
                open_.add(p)
            else:
                groups[p].samples.append(sample)
        if started.enough is not None:
            everywhere = from_every_rank(open_)
            whole = [p for p in range(len(groups)) if not any(p in places for places in everywhere)]
            open_ = set(range(len(groups))) - set(whole[: started.enough])
        left = [groups[p].prompt for p in sorted(open_)]
        return [group for p, group in enumerate(groups) if p not in open_], left

    def add_golden(self, groups: list[Group], max_response_tokens: int) -> None:
        """Puts the golden answer beside the groups that this rank grades for; one too long counts as missing."""
        world, rank = dist.get_world_size(), dist.get_rank()
        for number, group in enumerate(groups):
            ids = group.prompt.golden_ids
            if number % world == rank and ids is not None and len(ids) <= max_response_tokens:
                group.golden = group.prompt.golden_sample()

    def grade(self, groups: list[Group]) -> tuple[list[Group], dict[str, float]]:
        """Grades this rank's samples and golden answers, then joins all ranks' groups (samples in order)."""
        pairs = [(g.prompt, s) for g in groups for s in [*g.samples, *([g.golden] if g.golden else [])]]
        metrics = self.grader.grade(pairs)
        shares = from_every_rank(([(g.samples, g.golden) for g in groups], metrics))
        joined = []
        for number, group in enumerate(groups):
            fragments = [share[number] for share, _ in shares]
            samples = sorted((s for samples, _ in fragments for s in samples), key=lambda s: s.index)
            golden = next((g for _, g in fragments if g is not None), None)
            joined.append(Group(group.prompt, samples, golden))
        totals = {name: sum((m.get(name, 0.0) for _, m in shares), 0.0) for name in metrics}
        return joined, totals

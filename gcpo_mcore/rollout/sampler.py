"""Shares the prompts of a step out over all ranks, grades each rank's share there, and tells all ranks the facts."""

from dataclasses import dataclass

import torch.distributed as dist

from gcpo_mcore.base.collectives import from_every_rank
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Engine, Job, Request
from gcpo_mcore.rollout.facts import hear, tell
from gcpo_mcore.rollout.sampling import request_seed
from gcpo_mcore.samples import Facts, Fragment, Group, Prompt, Sample


@dataclass
class Started:
    """Work that the engine has: its prompts, and whose prompt each of this rank's requests is."""

    prompts: list[Prompt]
    places: list[int]
    job: Job
    enough: int | None


class Sampler:
    """Prompts in, graded groups out: their facts on every rank, their samples where they were made."""

    def __init__(self, engine: Engine, grader: Grader, seed: int, max_failed_rounds: int | None = None):
        """max_failed_rounds: another than reward.max_failed_rounds."""
        self.engine, self.grader, self.seed = engine, grader, seed
        self.max_failed_rounds = grader.config.max_failed_rounds if max_failed_rounds is None else max_failed_rounds
        self.failed_rounds = 0  # in a row up to now

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
        UserError on all ranks, with a sample and what happened to it, if `max_failed_rounds` times in a row nothing
        could be graded.
        """
        graded = [
            (number, sample)
            for number, fragment in enumerate(fragments)
            for sample in [*fragment.samples, *([fragment.golden] if fragment.golden else [])]
        ]
        metrics = self.grader.grade([(fragments[number].prompt, sample) for number, sample in graded])
        shares = from_every_rank((tell(graded, store), metrics, self.grader.failure))
        groups = hear([fragment.prompt for fragment in fragments], [told for told, _, _ in shares])
        summed = {name: sum(m.get(name, 0.0) for _, m, _ in shares) for name in metrics}
        self._check_failures(summed, next((failure for _, _, failure in shares if failure), ""))
        return groups, summed

    def _check_failures(self, metrics: dict[str, float], first: str) -> None:
        """Counts a round of which nothing could be graded; UserError when there were too many in a row."""
        samples = int(metrics["grading/samples"])
        if samples == 0:
            return
        is_failed = samples == sum(metrics[f"grading/{kind}"] for kind in ("timeouts", "crashes", "errors"))
        self.failed_rounds = self.failed_rounds + 1 if is_failed else 0
        if self.max_failed_rounds and self.failed_rounds >= self.max_failed_rounds:
            rounds = f"{self.failed_rounds} rounds in a row" if self.failed_rounds > 1 else "a round"
            raise UserError(
                f"phase grade: in {rounds} not one of {samples} samples could be graded "
                f"(reward.max_failed_rounds); the first: {first}"
            )

    def gather(self, fragments: list[Fragment]) -> list[Group[Sample]]:
        """The groups with all their samples, on every rank: for evaluations, whose answers are written down."""
        groups: list[Group[Sample]] = [Group(fragment.prompt, []) for fragment in fragments]
        for share in from_every_rank([fragment.samples for fragment in fragments]):
            for group, samples in zip(groups, share, strict=True):
                group.samples += samples
        for group in groups:
            group.samples.sort(key=lambda sample: sample.index)
        return groups

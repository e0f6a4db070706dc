"""What is known of a job of the SGLang engine: pure bookkeeping, on rank 0."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Job, Leftover, Leftovers, Request
from gcpo_mcore.samples import Sample


class Work:
    """The requests of all ranks in one job, by number in the order of the ranks.

    shares    each rank's requests
    enough    of so many prompts all requests are to be answered; None: of all
    samples   the answers so far
    begun     the first tokens of requests that are not whole
    """

    def __init__(self, shares: Sequence[Sequence[Request]], sampling: Sampling, enough: int | None):
        self.shares, self.sampling, self.enough = shares, sampling, enough
        self.requests = [request for share in shares for request in share]
        self.samples: dict[int, Sample] = {}
        self.begun: dict[int, Sample] = {}

    def missing(self) -> list[int]:
        """The requests without an answer."""
        return [number for number in range(len(self.requests)) if number not in self.samples]

    def whole_prompts(self) -> list[str]:
        """The prompts of which every request is answered, in order."""
        is_whole: dict[str, bool] = {}
        for number, request in enumerate(self.requests):
            is_whole[request.prompt.id] = is_whole.get(request.prompt.id, True) and number in self.samples
        return [prompt for prompt, whole in is_whole.items() if whole]

    def prompts_wanted(self) -> int:
        """How many prompts must still become whole."""
        prompts = len({request.prompt.id for request in self.requests})
        return max(0, min(self.enough or prompts, prompts) - len(self.whole_prompts()))

    def add(self, numbers: Sequence[int], samples: Mapping[int, Sample], begun: Mapping[int, Sample]) -> None:
        """Enters what a dispatch of the requests `numbers` has, which counts them from 0."""
        self.samples |= {numbers[place]: sample for place, sample in samples.items()}
        self.begun = {numbers[place]: sample for place, sample in begun.items()}

    def begin_with(self, leftovers: Mapping[tuple[str, int], Leftover]) -> int:
        """Enters what an earlier job left of these requests; returns how many of them are whole."""
        for number, request in enumerate(self.requests):
            if leftover := leftovers.get(_key(request)):
                (self.samples if leftover.is_whole else self.begun)[number] = leftover.sample
        return len(self.samples)

    def sampled(self, numbers: Sequence[int], samples: Mapping[int, Sample], begun: Mapping[int, Sample]) -> Leftovers:
        """What there is of the job, with what a dispatch of the requests `numbers` has meanwhile."""
        found: Leftovers = {}
        for is_whole, mine, theirs in ((False, self.begun, begun), (True, self.samples, samples)):
            every = mine | {numbers[place]: sample for place, sample in theirs.items()}
            found |= {_key(self.requests[number]): Leftover(sample, is_whole) for number, sample in every.items()}
        return found

    def drop_surplus(self) -> Leftovers:
        """Drops, and returns, what there is of all prompts but the first `enough` whole ones."""
        used = set(self.whole_prompts()[: self.enough])
        dropped: Leftovers = {}
        for number, request in enumerate(self.requests):
            if request.prompt.id in used:
                continue
            if number in self.samples:
                dropped[_key(request)] = Leftover(self.samples.pop(number), is_whole=True)
            elif number in self.begun:
                dropped[_key(request)] = Leftover(self.begun[number], is_whole=False)
        return dropped

    def answers(self) -> list[list[Sample | None]]:
        """For each rank a sample for each of its requests, None where there is no answer."""
        numbers = iter(range(len(self.requests)))
        return [[self.samples.get(next(numbers)) for _ in share] for share in self.shares]


@dataclass(eq=False)
class SglangJob(Job):
    """`work`: the job of all ranks, on rank 0; None on the others."""

    work: Work | None = None


def _key(request: Request) -> tuple[str, int]:
    return request.prompt.id, request.index

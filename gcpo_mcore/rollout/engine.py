"""What every rollout engine offers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf.peft import LoraFactors
from gcpo_mcore.rollout.config import RolloutConfig, Sampling
from gcpo_mcore.samples import Prompt, Sample


class Weights(Protocol):
    """Where an engine gets weights: the actor, or `FixedWeights`. `version` names what `export` would stream now."""

    @property
    def version(self) -> int: ...

    def export(self) -> Iterable[tuple[str, torch.Tensor]]:
        """Every (Hugging Face name, full tensor). A collective: every rank draws it to its end, in step."""
        ...

    def adapter(self) -> LoraFactors:
        """The adapter alone, whole on rank 0, for an engine that has its base. A collective. UserError without one."""
        ...

    def offload(self) -> None:
        """Leaves the device to the engine, as far as it can; `export` brings back what it needs."""
        ...


@dataclass(frozen=True)
class FixedWeights:
    """Weights that do not change, from a stream that can be made anew."""

    version: int
    stream: Callable[[], Iterable[tuple[str, torch.Tensor]]]

    def export(self) -> Iterable[tuple[str, torch.Tensor]]:
        """See `Weights`."""
        return self.stream()

    def adapter(self) -> LoraFactors:
        """See `Weights`."""
        raise UserError("rollout.adapter_folder is for a run with model/adapter=lora: these weights have no adapter")

    def offload(self) -> None:
        """See `Weights`: nothing of them is kept on the device."""


@dataclass(frozen=True)
class Request:
    """One response wanted: the prompt, its place in the group, and the seed of its own random numbers."""

    prompt: Prompt
    index: int
    seed: int


@dataclass
class Job:
    """Requests that an engine was given by `begin`; engines extend it."""

    requests: list[Request]
    sampling: Sampling


@dataclass(frozen=True)
class Leftover:
    """A response, or its first tokens, that nobody has used yet."""

    sample: Sample
    is_whole: bool


Leftovers = dict[tuple[str, int], Leftover]  # by prompt and place in the group


class Engine(ABC):
    """Token ids in, token ids and log-probs out. Every rank has one, and calls each method in step with the others.

    Built as `engine(config, model_folder, dtype, stop_token_ids, decode)`, where `config` is a `Config`, the
    engine's own extension of RolloutConfig. `version` is that of its weights, -1 while it has none.
    `decode` is kept for those who join token ids.
    """

    Config: ClassVar[type[RolloutConfig]]
    version: int
    decode: Callable[[list[int]], str]

    @abstractmethod
    def update_weights(self, weights: Weights) -> None:
        """Takes all weights; samples begun later carry their version. Jobs under way may go on with them: a sample
        then says which of its tokens did.

        An engine of other processes has `weights` offloaded before it takes the rest of its memory. It may export them
        again within `finish`, until the next call.
        """

    @abstractmethod
    def begin(self, requests: list[Request], sampling: Sampling, enough: int | None = None) -> Job:
        """Takes this rank's requests; an engine of other processes starts on them while the caller goes on.

        enough: it may stop when all requests of so many prompts are answered, over all ranks.
        """

    @abstractmethod
    def finish(self, job: Job) -> Sequence[Sample | None]:
        """A sample for each request of the job, in order; None where it stopped before there was one."""

    def generate(self, requests: list[Request], sampling: Sampling) -> list[Sample]:
        """A sample for each of the requests, in order. RuntimeError if the engine left one out."""
        found = self.finish(self.begin(requests, sampling))
        samples = [sample for sample in found if sample is not None]
        if len(samples) != len(requests):
            raise RuntimeError(
                f"phase sample: {len(requests) - len(samples)} of {len(requests)} requests got no sample"
            )
        return samples

    def sampled(self, job: Job | None) -> Leftovers:
        """What there is so far of a job under way, or, without one, of no job: of all ranks, on rank 0 (else empty)."""
        return {}

    def take_over(self, sampled: Leftovers, is_of_a_job: bool) -> None:  # noqa: B027 - most engines have none
        """What `sampled` gave in a former process, on every rank: the job that is begun next is asked for the rest."""

    def rest(self) -> None:  # noqa: B027 - not abstract: most engines keep what they have
        """Frees what it can until it is needed again; if it lets its weights go, `version` says so.

        Nothing may be under way. When it returns on one rank, the device is free on all of them.
        """

    def metrics(self) -> dict[str, float]:
        """What there is to log since the last call, the same on every rank."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Frees what the engine holds; no process stays behind."""


class NoEngine(Engine):
    """Samples nothing: for what is trained on that was sampled before."""

    version = -1

    def update_weights(self, weights: Weights) -> None:
        """Has no use for them."""

    def begin(self, requests: list[Request], sampling: Sampling, enough: int | None = None) -> Job:
        """RuntimeError: there is nothing to ask."""
        raise RuntimeError("no engine was built: this run does not sample")

    def finish(self, job: Job) -> Sequence[Sample | None]:
        """RuntimeError, as `begin`."""
        raise RuntimeError("no engine was built: this run does not sample")

    def close(self) -> None:
        """Holds nothing."""

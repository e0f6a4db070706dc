"""What every rollout engine offers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from gcpo_mcore.rollout.config import RolloutConfig, Sampling
from gcpo_mcore.samples import Prompt, Sample

# Streams every (Hugging Face name, full tensor). A collective: every rank draws it to its end, in step.
Weights = Callable[[], Iterable[tuple[str, torch.Tensor]]]


@dataclass(frozen=True)
class Request:
    """One response wanted: the prompt, its place in the group, and the seed of its own random numbers."""

    prompt: Prompt
    index: int
    seed: int


class Engine(Protocol):
    """Token ids in, token ids and log-probs out. Every rank has one, and calls each method in step with the others.

    Built as `engine(config, model_folder, dtype, stop_token_ids, decode)`, where `config` is a `Config`, the
    engine's own extension of RolloutConfig. `version` is that of its weights, -1 while it has none.
    """

    Config: ClassVar[type[RolloutConfig]]
    version: int

    def update_weights(self, weights: Weights, version: int) -> None:
        """Takes all weights; samples carry `version` from then on. It may stream them again until the next call."""

    def generate(self, requests: list[Request], sampling: Sampling) -> list[Sample]:
        """One sample per request of this rank, in order; [] for none."""

    def rest(self) -> None:
        """Frees what it can until it is needed again; if it lets its weights go, `version` says so."""

    def metrics(self) -> dict[str, float]:
        """What there is to log since the last call, the same on every rank."""

    def close(self) -> None:
        """Frees what the engine holds; no process stays behind."""

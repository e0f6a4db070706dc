"""What every rollout engine offers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.samples import Prompt, Sample


@dataclass(frozen=True)
class Request:
    """One response wanted: the prompt, its place in the group, and the seed of its own random numbers."""

    prompt: Prompt
    index: int
    seed: int


class Engine(Protocol):
    """Token ids in, token ids and log-probs out.

    Built as `engine(config, model_folder, dtype, stop_token_ids, decode)`. `version` is that of its weights, -1
    before the first.
    """

    version: int

    def update_weights(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Takes every (Hugging Face name, full tensor); samples carry `version` from then on."""

    def generate(self, requests: list[Request], sampling: Sampling) -> list[Sample]:
        """One sample per request, in order. The same request at the same weights gives the same sample."""

    def close(self) -> None:
        """Frees what the engine holds; no process stays behind."""

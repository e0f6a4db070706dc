"""The embedded engine: the whole model inside this process, with a KV cache, on CPU or GPU.

Its model (decoder.py) owes nothing to the actor's but the weights, which it gets from the export at every sync; so its
log-probs check the actor's at each step. Every rank holds a copy: for models that fit. Larger ones are for SGLang.
"""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import torch
from pydantic import PositiveInt, model_validator

from gcpo_mcore.base import platform
from gcpo_mcore.base.config import Free
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.registry import engines
from gcpo_mcore.rollout.cache import Cache
from gcpo_mcore.rollout.config import EngineMemory, RolloutConfig, Sampling
from gcpo_mcore.rollout.decoder import Decoder
from gcpo_mcore.rollout.decoding import Decoding
from gcpo_mcore.rollout.engine import Engine, Job, Request, Weights
from gcpo_mcore.samples import Sample

# Of a draw, for each token of the vocabulary: logits as they come, in fp32, by the temperature and cut, and weights
# twice; for top-p, sorted with their order and three sums of the same size.
DRAW_BYTES, DRAW_BYTES_TOP_P = 22, 38
PREFILL_TOKENS = 8192  # at a time; a longer prompt by itself


class EmbeddedConfig(RolloutConfig):
    """sequences_per_batch: how many responses are decoded side by side on a rank."""

    sequences_per_batch: Free[PositiveInt]

    @model_validator(mode="after")
    def _refuse_what_needs_other_processes(self):
        if self.oversampling > 1:
            raise UserError(
                f"rollout.oversampling={self.oversampling}: the embedded engine decodes its requests side by side, so "
                "that none is slow; use rollout=sglang"
            )
        if self.max_staleness:
            raise UserError(
                f"rollout.max_staleness={self.max_staleness}: the embedded engine works in the training process, so "
                "it cannot sample while that trains; use rollout=sglang"
            )
        return self

    def memory(self, arch: Any, max_prompt_tokens: int, dtype_bytes: int) -> EngineMemory:
        """A whole model of its own, and the cache of a batch."""
        rows = self.sequences_per_batch
        cache = self._cache_bytes(arch, max_prompt_tokens, rows, dtype_bytes)
        drawing = rows * arch.vocabulary * (DRAW_BYTES_TOP_P if self.sampling.top_p < 1 else DRAW_BYTES)
        tokens = max(min(PREFILL_TOKENS, rows * max_prompt_tokens), max_prompt_tokens)
        mlp = 2 * arch.intermediate
        if moe := arch.moe:
            mlp = moe.per_token * (2 * moe.intermediate + arch.hidden)
        attention = 3 * (arch.heads + 2 * arch.kv_heads) * arch.head_dim  # mixed, turned, and in order for the kernel
        prefill = tokens * (2 * arch.hidden + max(mlp, attention)) * dtype_bytes
        return EngineMemory(arch.parameters * dtype_bytes, cache, max(drawing, prefill))


@engines.register
class EmbeddedEngine(Engine):
    """Batched decoding of requests, longest prompts first; equal prompts are computed once, finished rows leave.

    The same request at the same weights gives the same sample, on whichever rank.
    """

    Config = EmbeddedConfig

    def __init__(
        self,
        config: EmbeddedConfig,
        model_folder: str,
        dtype: str,
        stop_token_ids: list[int],
        decode: Callable[[list[int]], str],
    ):
        self.config = config
        self.decode = decode
        self.device = platform.device()
        self.stop = torch.tensor(sorted(set(stop_token_ids)), device=self.device)
        self.version = -1
        self.decoder = Decoder(model_folder, dtype, self.device)

    def update_weights(self, weights: Weights) -> None:
        """Copies the weights in. RuntimeError if a tensor is unknown, misshapen or left out."""
        mine = dict(self.decoder.tensors)
        for name, tensor in weights.export():
            if name not in mine:
                raise RuntimeError(f"phase sync: the engine's model has no tensor {name}, or got it twice")
            target = mine.pop(name)
            if tensor.shape != target.shape:
                raise RuntimeError(f"phase sync: {name} has shape {[*tensor.shape]}, not {[*target.shape]}")
            target.fill(tensor)
        if mine:
            raise RuntimeError(f"phase sync: the engine never received {sorted(mine)[0]}")
        self.version = weights.version

    def begin(self, requests: list[Request], sampling: Sampling, enough: int | None = None) -> Job:
        """Only notes them down."""
        return Job(requests, sampling)

    @torch.inference_mode()
    def finish(self, job: Job) -> list[Sample]:
        """See `Engine.finish`."""
        asked, size = job.requests, self.config.sequences_per_batch
        order = sorted(range(len(asked)), key=lambda i: (-len(asked[i].prompt.token_ids), asked[i].prompt.token_ids))
        samples: dict[int, Sample] = {}
        for start in range(0, len(order), size):
            chunk = order[start : start + size]
            samples |= zip(chunk, self._decode([asked[i] for i in chunk], job.sampling), strict=True)
        return [samples[i] for i in range(len(asked))]

    def _decode(self, requests: list[Request], sampling: Sampling) -> list[Sample]:
        """Samples of requests that stand by prompt, the longest first."""
        prompts = [request.prompt.token_ids for request in requests]
        lengths = torch.tensor([len(ids) for ids in prompts], device=self.device)
        cache = self.decoder.cache(lengths, sampling.max_response_tokens)
        decoding = Decoding(requests, sampling, self.stop, cache)
        goes_on = decoding.draw(self._prefill(prompts, cache))
        while goes_on:
            goes_on = decoding.draw(self.decoder.step(*decoding.next_tokens(), cache))
        return decoding.samples(self.decode, self.version)

    def _prefill(self, prompts: list[list[int]], cache: Cache) -> torch.Tensor:
        """Logits [rows, v] after each row's prompt; one that several rows have is computed once."""
        logits, row = [], 0
        for chunk in _chunks([(ids, len(list(same))) for ids, same in groupby(prompts)]):
            different, copies = zip(*chunk, strict=True)
            found = self.decoder.prefill(different, copies, row, cache)
            logits.append(found.repeat_interleave(torch.tensor(copies, device=self.device), dim=0))
            row += sum(copies)
        return torch.cat(logits)

    def close(self) -> None:
        """Drops the model."""
        del self.decoder


def _chunks(prompts: list[tuple[list[int], int]]) -> Iterator[list[tuple[list[int], int]]]:
    """The prompts in turn, at most PREFILL_TOKENS at a time but where one is longer."""
    chunk: list[tuple[list[int], int]] = []
    tokens = 0
    for each in prompts:
        if chunk and tokens + len(each[0]) > PREFILL_TOKENS:
            yield chunk
            chunk, tokens = [], 0
        chunk.append(each)
        tokens += len(each[0])
    yield chunk

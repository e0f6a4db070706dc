"""The embedded engine: the whole model inside this process, with a KV cache, on CPU or GPU.

It is transformers' own implementation of the architecture, fed by the actor's export at every sync; so its
log-probs check the actor's at each step. Every rank holds a copy: for models that fit. Larger ones are for
SGLang.
"""

from collections.abc import Callable
from typing import Any

import torch
from pydantic import PositiveInt, model_validator

from gcpo_mcore.base import platform
from gcpo_mcore.base.config import Free
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.registry import engines
from gcpo_mcore.hf.tensors import tensors_on_disk
from gcpo_mcore.rollout.config import EngineMemory, RolloutConfig, Sampling
from gcpo_mcore.rollout.engine import Engine, Job, Request, Weights
from gcpo_mcore.rollout.sampling import draw, uniforms
from gcpo_mcore.samples import Sample

# Of a draw, for each token of the vocabulary: logits as they come and in fp32, log-probs, the cumulative sum in fp64.
DRAW_BYTES = 36


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
        cache = self._cache_bytes(arch, max_prompt_tokens, self.sequences_per_batch, dtype_bytes)
        cache += cache // arch.layers  # a step's keys and values are joined to a layer's by copying them
        drawing = self.sequences_per_batch * arch.vocabulary * DRAW_BYTES
        return EngineMemory(arch.parameters * dtype_bytes, cache, drawing)


@engines.register
class EmbeddedEngine(Engine):
    """Batched decoding of requests, longest prompts first; finished rows leave the batch.

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
        from transformers import AutoConfig, AutoModelForCausalLM  # not at the top: reading a configuration comes here

        self.config = config
        self.decode = decode
        self.device = platform.device()
        self.stop = torch.tensor(sorted(set(stop_token_ids)), device=self.device)
        self.version = -1
        hf = AutoConfig.from_pretrained(model_folder)
        self.model = AutoModelForCausalLM.from_config(hf, dtype=getattr(torch, dtype), attn_implementation="sdpa")
        self.model.to(self.device).eval().requires_grad_(False)

    def update_weights(self, weights: Weights) -> None:
        """Copies the weights in. RuntimeError if a tensor is unknown, misshapen or left out."""
        mine = tensors_on_disk(self.model)
        for name, tensor in weights.export():
            if name not in mine:
                raise RuntimeError(f"phase sync: the engine's model has no tensor {name}, or got it twice")
            target = mine.pop(name)
            if tensor.shape != target.shape:  # copy_ would broadcast it
                raise RuntimeError(f"phase sync: {name} has shape {[*tensor.shape]}, not {[*target.shape]}")
            target.copy_(tensor)
        if mine:
            raise RuntimeError(f"phase sync: the engine never received {sorted(mine)[0]}")
        self.version = weights.version

    def begin(self, requests: list[Request], sampling: Sampling, enough: int | None = None) -> Job:
        """Only notes them down."""
        return Job(requests, sampling)

    @torch.inference_mode()
    def finish(self, job: Job) -> list[Sample]:
        """See `Engine.finish`."""
        requests, sampling = job.requests, job.sampling
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i].prompt.token_ids))
        samples: dict[int, Sample] = {}
        size = self.config.sequences_per_batch
        for start in range(0, len(order), size):
            chunk = order[start : start + size]
            for i, sample in zip(chunk, self._decode_batch([requests[i] for i in chunk], sampling), strict=True):
                samples[i] = sample
        return [samples[i] for i in range(len(requests))]

    def _decode_batch(self, requests: list[Request], sampling: Sampling) -> list[Sample]:
        from transformers import DynamicCache

        count, limit = len(requests), sampling.max_response_tokens
        width = max(len(r.prompt.token_ids) for r in requests)
        tokens = torch.zeros(count, width, dtype=torch.int64)
        attention = torch.zeros(count, width, dtype=torch.int64)
        for row, request in enumerate(requests):  # padded on the left: every row's next token is at the same place
            ids = request.prompt.token_ids
            tokens[row, width - len(ids) :] = torch.tensor(ids)
            attention[row, width - len(ids) :] = 1
        tokens, attention = tokens.to(self.device), attention.to(self.device)
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        draws = torch.stack([torch.from_numpy(uniforms(r.seed, limit)) for r in requests]).to(self.device)

        out_ids = torch.zeros(count, limit, dtype=torch.int64, device=self.device)
        model_logp = torch.zeros(count, limit, device=self.device)
        drawn_logp = torch.zeros(count, limit, device=self.device)
        length = torch.full((count,), limit, device=self.device)
        stopped = torch.zeros(count, dtype=torch.bool, device=self.device)
        rows = torch.arange(count, device=self.device)  # which request each line of the live batch belongs to
        cache = DynamicCache()
        for t in range(limit):
            logits = self.model(
                input_ids=tokens,
                attention_mask=attention,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            token, logp, drawn = draw(logits.float(), draws[rows, t], sampling)
            out_ids[rows, t], model_logp[rows, t], drawn_logp[rows, t] = token, logp, drawn
            ended = rows[torch.isin(token, self.stop) & ~stopped[rows]]
            stopped[ended] = True
            length[ended] = t + 1
            live = (~stopped[rows]).nonzero().squeeze(1)
            if len(live) == 0:
                break
            tokens, attention, positions = token.unsqueeze(1), _grow(attention), positions[:, -1:] + 1
            # A finished row decodes on, past its length, until half of the batch is finished: compacting
            # copies the whole cache, which costs more than a few idle rows.
            if len(live) <= len(rows) // 2:
                cache.batch_select_indices(live)
                tokens, attention, positions, rows = tokens[live], attention[live], positions[live], rows[live]
        return self._samples(requests, out_ids, model_logp, drawn_logp, length, stopped)

    def _samples(self, requests, out_ids, model_logp, drawn_logp, length, stopped) -> list[Sample]:
        out_ids = out_ids.to(torch.int32).cpu().numpy()
        model_logp, drawn_logp = model_logp.cpu().numpy(), drawn_logp.cpu().numpy()
        samples = []
        for row, (request, n, is_stopped) in enumerate(zip(requests, length.tolist(), stopped.tolist(), strict=True)):
            ids = out_ids[row, :n].copy()
            samples.append(
                Sample(
                    index=request.index,
                    response_ids=ids,
                    response_text=self.decode(ids.tolist()),
                    truncated=not is_stopped,
                    rollout_logp=model_logp[row, :n].copy(),
                    sampling_logp=drawn_logp[row, :n].copy(),
                    weight_version=self.version,
                )
            )
        return samples

    def close(self) -> None:
        """Drops the model."""
        del self.model


def _grow(attention: torch.Tensor) -> torch.Tensor:
    return torch.cat([attention, attention.new_ones(len(attention), 1)], dim=1)

"""Requests that decode side by side: what they have drawn, and which rows of the cache are theirs."""

from collections.abc import Callable

import numpy as np
import torch

from gcpo_mcore.rollout.cache import Cache
from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Request
from gcpo_mcore.rollout.sampling import draw, uniforms
from gcpo_mcore.samples import Sample

CHECK_EVERY_TOKENS = {"cpu": 1, "cuda": 16}  # for stop tokens: each look makes a GPU wait for the host


class Decoding:
    """`requests`, a row each. Of every tensor by rows the first ones are live, as in the cache.

    The place of a finished row is taken by the last live one: that copies one row for each request at most.
    """

    def __init__(self, requests: list[Request], sampling: Sampling, stop: torch.Tensor, cache: Cache):
        self.requests, self.sampling, self.stop, self.cache = requests, sampling, stop, cache
        count, limit, device = len(requests), sampling.max_response_tokens, stop.device
        self.uniforms = torch.stack([torch.from_numpy(uniforms(r.seed, limit)) for r in requests]).to(device)
        self.request = torch.arange(count, device=device)  # whose row it is
        self.prompt_tokens = torch.tensor([len(r.prompt.token_ids) for r in requests], device=device)
        self.tokens = torch.zeros(count, dtype=torch.int64, device=device)  # the last ones
        self.ids = torch.zeros(limit, count, dtype=torch.int64, device=device)
        self.model_logp, self.drawn_logp = torch.zeros(2, limit, count, device=device)
        self.check_every = CHECK_EVERY_TOKENS[device.type]
        self.drawn = 0

    def draw(self, logits: torch.Tensor) -> bool:
        """Draws each live row's next token from logits [live, v]; False if no row needs another one."""
        found = draw(logits.float(), self.uniforms[: self.cache.live, self.drawn], self.sampling)
        request = self.request[: self.cache.live]
        for out, values in zip((self.ids, self.model_logp, self.drawn_logp), found, strict=True):
            out[self.drawn].scatter_(0, request, values)
        self.tokens[: self.cache.live] = found[0]
        self.drawn += 1
        if len(self.stop) and self.drawn % self.check_every == 0:
            self._drop_finished()
        return self.cache.live > 0 and self.drawn < len(self.ids)

    def _drop_finished(self) -> None:
        recent = self.ids[self.drawn - self.check_every : self.drawn, self.request[: self.cache.live]]
        is_live = torch.isin(recent, self.stop, invert=True).all(0)
        live = int(is_live.sum())
        if live == self.cache.live:
            return
        places = (~is_live[:live]).nonzero().squeeze(1)
        movers = is_live[live:].nonzero().squeeze(1) + live
        for tensor in (self.uniforms, self.request, self.prompt_tokens, self.tokens):
            tensor[places] = tensor[movers]
        self.cache.move(movers, places)
        self.cache.live = live

    def next_tokens(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What the live rows drew last, and its positions [live]."""
        live = self.cache.live
        return self.tokens[:live], self.prompt_tokens[:live] + self.drawn - 1

    def samples(self, decode: Callable[[list[int]], str], version: int) -> list[Sample]:
        """A sample for each request: its tokens up to the first stop token."""
        ids, model_logp, drawn_logp = (
            x[: self.drawn].t().cpu().numpy() for x in (self.ids, self.model_logp, self.drawn_logp)
        )
        is_stop = np.isin(ids, self.stop.cpu().numpy())
        samples = []
        for row, request in enumerate(self.requests):
            is_stopped = bool(is_stop[row].any())
            n = int(is_stop[row].argmax()) + 1 if is_stopped else self.drawn
            samples.append(
                Sample(
                    index=request.index,
                    response_ids=ids[row, :n].astype(np.int32),
                    response_text=decode(ids[row, :n].tolist()),
                    truncated=not is_stopped,
                    rollout_logp=model_logp[row, :n].copy(),
                    sampling_logp=drawn_logp[row, :n].copy(),
                    weight_version=version,
                )
            )
        return samples

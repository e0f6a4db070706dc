"""Drawing tokens: the sampling distribution, and random numbers that belong to a request."""

import hashlib

import numpy as np
import torch

from gcpo_mcore.rollout.config import Sampling


def request_seed(*names) -> int:
    """A 128-bit seed from what identifies a response ('train', run seed, step, prompt, index)."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, names)).encode()).digest()[:16], "little")


def uniforms(seed: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) of the request's own stream: the same in whichever batch or rank it is decoded."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def draw(
    logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Next tokens by inverting the cumulative distribution.

    logits [b, v] fp32, uniform [b] float64 -> token [b] int64, its log-prob under the model at the sampling
    temperature [b] (greedy: at temperature 1), its log-prob under the distribution drawn from [b].
    """
    if sampling.temperature == 0:
        token = logits.argmax(1)
        return token, _pick(logits.log_softmax(1), token), torch.zeros_like(uniform, dtype=logits.dtype)
    scaled = logits / sampling.temperature
    model_logp = scaled.log_softmax(1)
    kept = _truncate(scaled, sampling)
    drawn_logp = model_logp if kept is scaled else kept.log_softmax(1)
    cumulative = drawn_logp.double().exp().cumsum(1)
    # below the last value even when rounding leaves it under 1; 'right' skips tokens of probability 0
    point = (uniform * cumulative[:, -1]).unsqueeze(1)
    token = torch.searchsorted(cumulative, point, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)
    return token, _pick(model_logp, token), _pick(drawn_logp, token)


def _truncate(scaled: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """`scaled` with -inf outside the top-k, then outside the smallest set that holds top-p of what is left."""
    if 0 < sampling.top_k < scaled.shape[1]:
        threshold = scaled.topk(sampling.top_k, dim=1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < threshold, float("-inf"))
    if sampling.top_p < 1:
        ordered, order = scaled.sort(dim=1, descending=True)
        p = ordered.softmax(1)
        outside = p.cumsum(1) - p >= sampling.top_p  # the mass before the token already reaches top_p
        scaled = scaled.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), float("-inf"))
    return scaled


def _pick(values: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    return values.gather(1, token.unsqueeze(1)).squeeze(1)

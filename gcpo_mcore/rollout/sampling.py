"""Drawing tokens: the sampling distribution, and random numbers that belong to a request."""

import hashlib
import math

import numpy as np
import torch

from gcpo_mcore.rollout.config import Sampling

BLOCK = 128  # weights that are summed in fp32


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
        return token, -_weights(logits).sum(1).log(), torch.zeros_like(uniform, dtype=logits.dtype)
    scaled = logits if sampling.temperature == 1 else logits / sampling.temperature
    kept = _truncate(scaled, sampling)
    weights = _weights(kept)
    token = _invert(weights, uniform)
    weight = _pick(weights, token)
    drawn_logp = (weight / weights.sum(1)).log()
    model_logp = drawn_logp if kept is scaled else (weight / _weights(scaled).sum(1)).log()
    return token, model_logp, drawn_logp


def _weights(scaled: torch.Tensor) -> torch.Tensor:
    """Probabilities of a row up to a factor: that of its most likely token is 1."""
    return (scaled - scaled.amax(1, keepdim=True)).exp_()


def _invert(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Where the cumulative sum of `weights` [b, v] first exceeds the fraction `uniform` of the whole.

    It looks for the block, then within the block: float64 for a few sums in place of a whole vocabulary.
    """
    size = math.gcd(weights.shape[1], BLOCK)
    if size == weights.shape[1]:  # of a small vocabulary
        return _search(weights.double().cumsum(1), uniform * weights.sum(1).double())[0]
    blocks = weights.unflatten(1, (-1, size))
    sums = blocks.sum(2).double().cumsum(1)
    block, beyond = _search(sums, uniform * sums[:, -1])
    if size == 1:
        return block
    inside = blocks[torch.arange(len(block), device=block.device), block].double().cumsum(1)
    return block * size + _search(inside, beyond)[0]


def _search(cumulative: torch.Tensor, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first index at which `cumulative` [b, n] exceeds `point` [b], and how far `point` is from the sum before it.

    A point that rounding has put at the end counts as below it: no index that adds nothing is ever found.
    """
    point = torch.minimum(point, cumulative[:, -1].nextafter(point.new_zeros(()))).unsqueeze(1)
    index = torch.searchsorted(cumulative, point, right=True).clamp(max=cumulative.shape[1] - 1)  # none exceeds nan
    before = cumulative.gather(1, (index - 1).clamp(min=0)).where(index > 0, 0)
    return index.squeeze(1), (point - before).squeeze(1)


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

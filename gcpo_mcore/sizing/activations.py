"""Bytes of activations kept for the backward pass, and of what exists for a moment only.

Derived from what torch saves of actor/model.py's layers (no fusions but torch's attention and norm), and compared with
what it really saves in tests/sizing/test_estimate.py. With experts the tokens are assumed to be evenly dealt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gcpo_mcore.actor import fused_head, logprobs
from gcpo_mcore.actor.config import LoraAdapter, ParallelConfig
from gcpo_mcore.actor.layout import Layout
from gcpo_mcore.hf import lora
from gcpo_mcore.hf.architecture import Architecture

FP32 = 4
LOGIT_BUFFERS = 3  # in fp32, that live at a time in actor/logprobs.py
# Pieces of unlike lengths side by side, by what they hold: bounded by the scores' FILLING in actor/packed_attention.py.
SIDE_BY_SIDE = 1.3


@dataclass(frozen=True)
class Pass:
    """A forward and backward pass of a micro-batch.

    tokens          of a micro-batch, on all context ranks together
    response_tokens of them those whose log-probs are wanted
    micro_batches   of an update, on a data-parallel rank
    is_packed       rows stand behind each other
    with_cuda       torch has one kernel for RMSNorm, which keeps no fp32 copies, and in half precision one for packs
    adapter         what alone is trained; None: all weights
    scores          of one head, those that attention keeps: of rows short enough for actor/short_attention.py
    """

    tokens: int
    response_tokens: int
    micro_batches: int
    is_packed: bool
    with_cuda: bool
    adapter: LoraAdapter | None = None
    scores: int = 0


def layer_bytes(
    arch: Architecture, parallel: ParallelConfig, layout: Layout, dtype_bytes: int, p: Pass, recompute: str
) -> int:
    """Bytes that one layer saves for the backward pass of one micro-batch."""
    n, t, b = p.tokens // layout.context, layout.tensor, dtype_bytes
    spread = t if parallel.sequence else 1  # sequence parallel: what lies outside of attention and MLP is cut
    stream = n * arch.hidden // spread
    if recompute == "full":
        return stream * b
    queries, keys = n * arch.heads * arch.head_dim // t, n * max(arch.kv_heads // t, 1) * arch.head_dim
    is_at_once = p.is_packed and p.with_cuda and b < FP32
    projected, rotated = (queries + 2 * keys) * b, queries * b
    heads = arch.heads // t
    if p.scores and p.is_packed:
        attention = int(SIDE_BY_SIDE * projected)  # copies, filled up
    elif layout.context == 1:
        attention = projected + rotated + keys * b  # the values are a view of what was projected
    else:  # keys and values of all ranks; without a norm on the keys nothing needs what was projected
        gathered = 2 * keys * layout.context * b
        # The two pieces of a row have their own copies: of all before the first, and of all before the second.
        gathered += gathered // (2 * layout.context) if p.is_packed else 0
        filled = SIDE_BY_SIDE if p.is_packed and not is_at_once else 1.0
        attention = int(filled * (rotated + gathered)) + (projected if arch.qk_norm else 0)
    # The result, the log of the sums, and the result once more where it is put together of rows or pieces.
    is_joined = (p.is_packed or layout.context > 1) and not is_at_once
    # Two products keep no result: the layer behind them does, where it is trained.
    results = 2 if is_joined else int(not p.scores or _is_trained(p, "o_proj"))
    attention += results * queries * b + heads * (p.scores * b or n * FP32)
    if arch.qk_norm:
        # Queries of several groups are copied out of the projection; the keys, like the values, are a view of it.
        copied = queries * b if arch.kv_heads > t else 0
        normalised = 0 if p.adapter else (queries + keys) * FP32  # as in `_norm_input`
        attention += copied if _has_one_norm(b, p) else (queries + keys) * FP32 + normalised
        attention += (queries + keys) // arch.head_dim * FP32
    # Each norm's input and scale, and its result where a layer that is trained reads that.
    is_read = [_is_trained(p, *lora.ATTENTION[:3]), arch.moe is not None or _is_trained(p, *lora.MLP[:2])]
    norms = 2 * (_norm_input(stream, b, p) + n // spread * FP32) + sum(is_read) * stream * b
    attention += _adapted(arch, n, b, p, lora.ATTENTION)
    return attention + norms + (0 if recompute == "selective" else _mlp(arch, layout, n, spread, b, p))


def _norm_input(elements: int, dtype_bytes: int, p: Pass) -> int:
    # Without that torch keeps the normalised values too, for the gradient of the norm's own weight.
    return elements * (dtype_bytes if _has_one_norm(dtype_bytes, p) else FP32 if p.adapter else 2 * FP32)


def _has_one_norm(dtype_bytes: int, p: Pass) -> bool:
    """Whether RMSNorm keeps its input alone: torch's kernel, or ours for fp32 on a CPU (actor/norm.py)."""
    return p.with_cuda or dtype_bytes == FP32


def _is_trained(p: Pass, *targets: str) -> bool:
    """Whether one of these layers has a gradient, for which its input is kept."""
    return p.adapter is None or any(p.adapter.has(target) for target in targets)


def _adapted(arch: Architecture, n: int, dtype_bytes: int, p: Pass, targets: Sequence[str]) -> int:
    """What adapters of these targets save: x A^T of each token, and the A of layers that are one in megatron-core."""
    if p.adapter is None:
        return 0
    own = FP32 if p.adapter.dtype == "float32" else dtype_bytes
    count = sum(p.adapter.has(target) for target in targets)
    return count * p.adapter.rank * own * (n + arch.hidden)


def _mlp(arch: Architecture, layout: Layout, n: int, spread: int, dtype_bytes: int, p: Pass) -> int:
    moe = arch.moe
    if moe is None:
        # gate and up as projected, and silu(gate) * up for the layer that reads it
        adapted = _adapted(arch, n, dtype_bytes, p, lora.MLP)
        kept = 2 + _is_trained(p, "down_proj")
        return kept * n * arch.intermediate // layout.tensor * dtype_bytes + adapted
    routed = n // spread * moe.per_token
    # the tokens sorted by expert before and after; as above, and the product weighted by the router
    inside = routed * (2 * arch.hidden + 4 * moe.intermediate) * dtype_bytes
    inside += _adapted(arch, routed, dtype_bytes, p, [lora.EXPERTS] * 3)
    return inside + n // spread * moe.count * (1 + FP32)  # who goes where


def activation_bytes(
    arch: Architecture, parallel: ParallelConfig, layout: Layout, dtype_bytes: int, p: Pass, stage: int
) -> int:
    """The most bytes that pipeline `stage` keeps at a time: its layers, once for every micro-batch in flight."""
    layers = arch.layers // layout.pipeline // layout.virtual_pipeline
    kept = layers * layer_bytes(arch, parallel, layout, dtype_bytes, p, parallel.recompute)
    total = in_flight(layout, stage, p.micro_batches) * kept
    head = 0
    if stage == layout.pipeline - 1:
        stream = p.tokens // layout.context * arch.hidden // (layout.tensor if parallel.sequence else 1)
        head = _norm_input(stream, dtype_bytes, p) + p.response_tokens // layout.context * arch.hidden * dtype_bytes
    if parallel.recompute == "none":
        return total + head
    # One layer at a time is made again, when the head's are gone.
    whole = layer_bytes(arch, parallel, layout, dtype_bytes, p, "none")
    return total + max(head, whole - layer_bytes(arch, parallel, layout, dtype_bytes, p, parallel.recompute))


def in_flight(layout: Layout, stage: int, micro_batches: int) -> int:
    """Chunks of layers of `stage` whose backward pass is still to come, at most (megatron-core's 1F1B schedules)."""
    p, v = layout.pipeline, layout.virtual_pipeline
    if v == 1:
        return min(p - stage, micro_batches)
    return min(2 * (p - stage - 1) + (v - 1) * p + 1, micro_batches * v)


def head_bytes(arch: Architecture, layout: Layout, dtype_bytes: int, p: Pass, is_backward: bool) -> int:
    """Bytes that exist for a moment while log-probs are made: logits of a chunk of tokens, and the head's gradient.

    The more of plain torch's and of the kernels', since a machine may lack what builds those.
    """
    rows = -(-arch.vocabulary // layout.tensor)
    tokens = max(p.response_tokens // layout.context, 1)
    plain, fused = (min(max(n // rows, 1), tokens) for n in (logprobs.LOGITS_PER_CHUNK, fused_head.LOGITS_PER_CHUNK))
    logits = max(LOGIT_BUFFERS * plain * FP32, fused * dtype_bytes) * rows
    return logits + (rows * arch.hidden * (FP32 + dtype_bytes) if is_backward and p.adapter is None else 0)

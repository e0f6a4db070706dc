"""Are the actor's own kernels right on this device? Against plain fp64, and against the same code on the CPU, as JSON:

    python bench/gpu_kernels.py [--size tiny] [--out FILE.json]

Log-probs of chunks, attention of packs (torch's flash attention on a GPU, rows side by side everywhere; with rows of
their own and behind shared prompts), SwiGLU and RMSNorm; results and gradients, fp32 and bf16. An error is the largest
difference as a fraction of the largest value. The exit code is 1 if one is too large; every figure is there all the
same.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from common import device_name
from megatron.core.transformer import TransformerConfig

from gcpo_mcore.actor.logprobs import token_logprobs
from gcpo_mcore.actor.norm import RMSNorm
from gcpo_mcore.actor.packed_attention import AttentionRows, all_at_once, in_batches
from gcpo_mcore.actor.swiglu import SwiGLU
from gcpo_mcore.base import platform
from gcpo_mcore.run.setup import process_group

CPU = torch.device("cpu")
# fp32: thousands of addends; bf16: 8 bits, and what is rounded on the way is rounded in another order.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.03}
TEMPERATURE, EPS = 1.3, 1e-6
Function = Callable[..., tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Case:
    """A kernel on inputs of `shapes`, and the textbook it is held against. `own` makes it for a device and a dtype."""

    name: str
    shapes: list[tuple[int, ...]]
    own: Callable[[torch.device, torch.dtype], Function]
    textbook: Function
    scale: float = 1.0  # of the normal inputs
    dtypes: tuple[torch.dtype, ...] = tuple(TOLERANCE)
    needs_gpu: bool = False  # else it is run on the CPU as well


@dataclass(frozen=True)
class Shape:
    """How large the inputs are."""

    tokens: int
    hidden: int
    vocabulary: int
    heads: tuple[tuple[int, int, int], ...]  # of queries, of keys, size
    length: int


SHAPES = {
    "tiny": Shape(40, 32, 203, ((4, 2, 16),), 24),
    # Heads of Qwen2.5-1.5B, 7B and Qwen3-8B.
    "full": Shape(256, 1536, 151936, ((12, 2, 128), (28, 4, 128), (32, 8, 64)), 512),
}


def logprob_case(shape: Shape, chunks: int) -> Case:
    """Log-probs and entropy, in so many chunks."""
    targets = torch.randint(0, shape.vocabulary, (shape.tokens,), generator=torch.Generator().manual_seed(0))
    at_a_time = -(-shape.tokens // chunks) * shape.vocabulary

    def own(device: torch.device, dtype: torch.dtype) -> Function:
        there, group = targets.to(device), dist.group.WORLD
        assert group is not None
        return lambda h, w: token_logprobs(h, w, there, shape.vocabulary, TEMPERATURE, group, at_a_time)

    def textbook(h: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
        log_p = (h @ w.T / TEMPERATURE).log_softmax(1)
        return log_p.gather(1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(1)

    shapes = [(shape.tokens, shape.hidden), (shape.vocabulary, shape.hidden)]
    return Case(f"token_logprobs, {chunks} chunks", shapes, own, textbook, scale=shape.hidden**-0.25)


def attention_rows(length: int) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Sizes and keys: rows by themselves, some with more keys than queries; and responses behind two prompts."""
    ragged = [(length, length), (1, 1), (length // 3, length), (length // 2 + 1, length // 2 + 1), (7, 16)]
    sizes, keys, end = [], [], 0
    for prompt, responses in ((length // 2, (length // 4, 3, length // 2)), (5, (1, length // 3))):
        start = end
        for own in (0, *responses):
            new = np.arange(end, end + (own or prompt))
            sizes.append((len(new), len(new) + (prompt if own else 0)))
            keys += [np.arange(start, start + prompt), new] if own else [new]
            end += len(new)
    return {"rows": (np.array(ragged), None), "shared prompts": (np.array(sizes), np.concatenate(keys))}


def attention_cases(shape: Shape) -> Iterator[Case]:
    """Both ways, every shape of heads."""
    for heads, kv_heads, size in shape.heads:
        for kind, (sizes, keys) in attention_rows(shape.length).items():
            positions = int(sizes[:, 1].sum()) if keys is None else int(keys.max()) + 1
            shapes = [(int(sizes[:, 0].sum()), heads, size), *[(positions, kv_heads, size)] * 2]
            for attend in (all_at_once, in_batches):
                is_flash = attend is all_at_once
                yield Case(
                    f"{attend.__name__}, {kind}, {heads}/{kv_heads} heads of {size}",
                    shapes,
                    partial(own_attention, attend, sizes, keys, size**-0.5),
                    partial(attended, sizes, keys, size**-0.5),
                    dtypes=(torch.bfloat16,) if is_flash else tuple(TOLERANCE),
                    needs_gpu=is_flash,
                )


def own_attention(
    attend: Callable[..., torch.Tensor],
    sizes: np.ndarray,
    keys: np.ndarray | None,
    scale: float,
    device: torch.device,
    dtype: torch.dtype,
) -> Function:
    """`attend` on rows that are on the device."""
    rows = AttentionRows(sizes, keys, device)
    return lambda q, k, v: (attend(q, k, v, rows, scale),)


def attended(
    sizes: np.ndarray, keys: np.ndarray | None, scale: float, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """The textbook: a softmax with a mask, row by row."""
    lie = torch.arange(len(k)) if keys is None else torch.from_numpy(keys)
    done, first_q, first_k, times = [], 0, 0, q.shape[1] // k.shape[1]
    for queries, seen in sizes.tolist():
        where = lie[first_k : first_k + seen]
        scores = torch.einsum("qhd,khd->hqk", q[first_q : first_q + queries], k[where].repeat_interleave(times, 1))
        is_future = torch.ones(queries, seen, dtype=torch.bool).triu(seen - queries + 1)
        p = (scores * scale).masked_fill(is_future, float("-inf")).softmax(-1)
        done.append(torch.einsum("hqk,khd->qhd", p, v[where].repeat_interleave(times, 1)))
        first_q, first_k = first_q + queries, first_k + seen
    return (torch.cat(done),)


def layer_cases(shape: Shape) -> Iterator[Case]:
    """SwiGLU and RMSNorm, as the layers have them."""

    def config(dtype: torch.dtype) -> TransformerConfig:
        return TransformerConfig(
            num_layers=1, hidden_size=8, num_attention_heads=1, gated_linear_unit=True, activation_func=F.silu,
            params_dtype=dtype, cuda_graph_scope=[],
        )  # fmt: skip

    def swiglu(device: torch.device, dtype: torch.dtype) -> Function:
        layer = SwiGLU(config(dtype))
        return lambda x: (layer(x),)

    def norm(device: torch.device, dtype: torch.dtype) -> Function:
        layer = RMSNorm(config(dtype), shape.hidden, eps=EPS).to(device)
        return lambda x, w: (torch.func.functional_call(layer, {"weight": w}, (x,)),)

    def plain_norm(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (x * (x.square().mean(-1, keepdim=True) + EPS).rsqrt() * w,)

    def plain_swiglu(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gate, up = x.chunk(2, dim=-1)
        return (gate * gate.sigmoid() * up,)

    yield Case("SwiGLU", [(shape.tokens, 6 * shape.hidden)], swiglu, plain_swiglu)
    yield Case("RMSNorm", [(shape.tokens, shape.hidden), (shape.hidden,)], norm, plain_norm)


def cases(size: str) -> list[Case]:
    """All of a size."""
    shape = SHAPES[size]
    of_logprobs = [logprob_case(shape, chunks) for chunks in (1, 3)]
    return [*of_logprobs, *attention_cases(shape), *layer_cases(shape)]


def values(function: Function, inputs: list[torch.Tensor], upstream: list[torch.Tensor]) -> list[torch.Tensor]:
    """Results and gradients of the inputs, in fp64 on the CPU."""
    results = function(*inputs)
    grads = torch.autograd.grad(results, inputs, [w.to(r) for w, r in zip(upstream, results, strict=True)])
    return [x.detach().cpu().double() for x in (*results, *grads)]


def errors(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The largest of the results and gradients; infinite where something is not finite."""
    if not all(bool(x.isfinite().all()) for x in found):
        return float("inf")
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))


def check(case: Case, dtype: torch.dtype, device: torch.device) -> dict:
    """One case in one dtype. The textbook gets the inputs and upstream gradients as rounded to that dtype."""
    torch.manual_seed(0)
    inputs = [(case.scale * torch.randn(s)).to(dtype) for s in case.shapes]

    def at(place: torch.device, kind: torch.dtype) -> list[torch.Tensor]:
        return [x.to(place, kind).requires_grad_() for x in inputs]

    with torch.no_grad():
        results = case.textbook(*at(CPU, torch.float64))
    upstream = [torch.randn(r.shape).to(dtype) for r in results]
    expected = values(case.textbook, at(CPU, torch.float64), upstream)
    found = values(case.own(device, dtype), at(device, dtype), upstream)
    result = {"kernel": case.name, "dtype": str(dtype).removeprefix("torch."), "error": errors(found, expected)}
    if device.type == "cuda" and not case.needs_gpu:
        on_cpu = values(case.own(CPU, dtype), at(CPU, dtype), upstream)
        result |= {"error_on_cpu": errors(on_cpu, expected), "difference_to_cpu": errors(found, on_cpu)}
    return result | {"tolerance": TOLERANCE[dtype], "is_right": result["error"] < TOLERANCE[dtype]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="full" if platform.HAS_CUDA else "tiny")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with process_group(None, deadline_s=600):
        found = [
            check(case, dtype, platform.device())
            for case in cases(args.size)
            if platform.HAS_CUDA or not case.needs_gpu
            for dtype in case.dtypes
        ]
    result = {"device": device_name(), "torch": torch.__version__, "kernels": found}
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    wrong = [f"{each['kernel']} in {each['dtype']}: {each['error']:.1e}" for each in found if not each["is_right"]]
    if wrong:
        sys.exit(f"error: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()

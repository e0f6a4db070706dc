"""Low-rank adapters (LoRA, arXiv 2106.09685) as numbers: what one adds to a linear layer's weight W [out, in].

    W + s B A        A [r, in], B [out, r]; s = alpha / r, or alpha / sqrt(r) (rsLoRA, arXiv 2312.03732)

B is 0 at the start, so the adapted layer is then the layer.
"""

import math
from collections.abc import Sequence

import torch
import xxhash

from gcpo_mcore.hf.architecture import Architecture

# Layers by the last part of their Hugging Face name; 'experts' stands for the three of every expert.
ATTENTION, MLP, EXPERTS = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj"), "experts"


def scale(rank: int, alpha: float, is_rank_stabilised: bool) -> float:
    """s of the equation above."""
    return alpha / (math.sqrt(rank) if is_rank_stabilised else rank)


def merged(weight: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """weight + delta, added in the type of `delta`, which is written over, and rounded once to the weight's."""
    return delta.add_(weight).to(weight.dtype)


def product(a: torch.Tensor, b: torch.Tensor, factor: float) -> torch.Tensor:
    """s B A [out, in] in fp32 or wider."""
    wide = torch.promote_types(a.dtype, torch.float32)
    return (b.to(wide) @ a.to(wide)).mul_(factor)


def starting_a(name: str, rank: int, in_features: int, seed: int) -> torch.Tensor:
    """A [r, in] fp32 of the layer `name` at the start, on the CPU: uniform within 1 / sqrt(in), as peft's; the same at
    every layout."""
    generator = torch.Generator().manual_seed(xxhash.xxh3_64_intdigest(f"{seed} {name}".encode()) % 2**63)
    return torch.empty(rank, in_features).uniform_(-1, 1, generator=generator).div_(math.sqrt(in_features))


def parameters(arch: Architecture, rank: int, wanted: Sequence[str]) -> int:
    """How many values all A and B have."""
    queries, keys = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    width = {"q_proj": queries, "k_proj": keys, "v_proj": keys, "o_proj": queries}
    total = sum(arch.hidden + out for target, out in width.items() if wanted == "all-linear" or target in wanted)
    if moe := arch.moe:
        each, targets = moe.intermediate, [EXPERTS] * 3 * moe.count
    else:
        each, targets = arch.intermediate, list(MLP)
    total += sum(arch.hidden + each for target in targets if wanted == "all-linear" or target in wanted)
    return arch.layers * rank * total


def targets_of(names: list[str], wanted: Sequence[str]) -> set[str]:
    """Those of the architecture's weights `names` that are adapted: the layers' names, without '.weight'.

    wanted: 'all-linear', or some of `ATTENTION`, `MLP` (of dense models) and 'experts'.
    """
    found = set()
    for name in names:
        layer, _, kind = name.rpartition(".")
        target = target_of(layer)
        if kind == "weight" and target and (wanted == "all-linear" or target in wanted):
            found.add(layer)
    return found


def target_of(layer: str) -> str | None:
    """What a layer is called among the targets, by its Hugging Face name; None for one that is never adapted."""
    *path, last = layer.split(".")
    if last not in (*ATTENTION, *MLP):
        return None
    return EXPERTS if EXPERTS in path else last

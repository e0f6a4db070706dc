"""Bytes of parameters, gradients and optimizer state on a rank, exact: what megatron-core 0.16 allocates for them.

Gradients lie in fp32 buffers. A distributed optimizer keeps the weights in such buffers too, aligns every parameter
and bucket in them, and gives each data-parallel rank an equal piece of every bucket. Frozen weights are in no buffer.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from gcpo_mcore.actor.config import LoraAdapter
from gcpo_mcore.actor.layout import Layout
from gcpo_mcore.hf.architecture import Architecture
from gcpo_mcore.sizing.parameters import Size, stage_adapters, stage_parameters

FP32 = 4
PARAMETER_ALIGNMENT, BUCKET_ALIGNMENT = 64, 128  # elements (megatron-core's param_and_grad_buffer.py)


@dataclass(frozen=True)
class Static:
    """Bytes that a rank holds all the time. optimizer: both moments, and fp32 weights where those trained are bf16."""

    parameters: int
    gradients: int
    optimizer: int
    stepped: int  # elements that this rank's optimizer steps
    frozen: int  # of the parameters, those of an adapter's base
    parameter_bytes: tuple[int, ...]  # of each parameter
    weight_storages: tuple[int, ...]  # the parameters by piece of memory: a buffer is one
    state_storages: tuple[int, ...]  # the optimizer's likewise


def static_bytes(
    arch: Architecture,
    layout: Layout,
    dtype_bytes: int,
    is_sharded: bool,
    stage: int,
    data_rank: int = 0,
    adapter: LoraAdapter | None = None,
) -> Static:
    """Bytes of the rank at pipeline `stage`. `is_sharded`: a distributed optimizer. adapter: None trains all weights.

    `data_rank` counts over data and context ranks together; the first holds the largest piece but for padding.
    """
    held = 0
    weights: list[int] = []
    stepped: list[int] = []  # elements of each parameter that this rank steps
    trained, own_bytes = stage_parameters(arch, layout, stage), dtype_bytes
    if adapter:
        weights = [dtype_bytes * size.elements for chunk in trained for size in chunk]
        trained = stage_adapters(arch, layout, stage, adapter)
        own_bytes = FP32 if adapter.dtype == "float32" else dtype_bytes
    frozen, each = sum(weights), [*weights]
    for chunk in trained:
        for sizes, ranks in _buffers(chunk, layout):
            each += [size.elements * own_bytes for size in sizes]
            if is_sharded:
                places, end = _places(sizes, ranks)
                weights.append(end * own_bytes)
                stepped += _pieces(places, ranks, data_rank % ranks)
                held += end
            else:
                own = [size.elements for size in sizes]
                weights += [n * own_bytes for n in own]
                stepped += own
                held += sum(own)
    states = 3 if own_bytes < FP32 else 2  # both moments, and fp32 weights
    state = [n * FP32 for n in stepped] * states
    storages = tuple(each), tuple(weights), tuple(state)
    return Static(sum(weights), held * FP32, sum(state), sum(stepped), frozen, *storages)


def _buffers(chunk: list[Size], layout: Layout) -> Iterator[tuple[list[Size], int]]:
    """The chunk's dense and expert parameters, each with the number of ranks that sum their gradients."""
    dense_ranks = layout.data * layout.context
    expert_ranks = layout.world // layout.pipeline // layout.expert
    for is_expert, ranks in ((False, dense_ranks), (True, expert_ranks)):
        if sizes := [size for size in chunk if size.is_expert == is_expert]:
            yield sizes, ranks


def _places(sizes: list[Size], ranks: int) -> tuple[list[tuple[int, int, int, int]], int]:
    """(begin, end of the parameter, begin, end of its bucket) in elements, and the whole buffer's length.

    Parameters stand in reverse order in one bucket; an embedding that two stages share has a bucket of its own.
    """
    alignment = math.lcm(ranks, BUCKET_ALIGNMENT)
    buckets: list[list[tuple[int, int]]] = [[]]
    edges, at = [0], 0
    for size in reversed(sizes):
        at = _up(at, PARAMETER_ALIGNMENT)
        if size.is_shared and buckets[-1]:
            at = _up(at, alignment)
            edges.append(at)
            buckets.append([])
        buckets[-1].append((at, at + size.elements))
        at += size.elements
        if size.is_shared:
            at = _up(at, alignment)
            edges.append(at)
            buckets.append([])
    if buckets[-1]:
        at = _up(at, alignment)
        edges.append(at)
    places = []
    for bucket, begin, end in zip(buckets, edges, edges[1:], strict=False):
        places += [(a, b, begin, end) for a, b in bucket]
    return places, at


def _pieces(places: list[tuple[int, int, int, int]], ranks: int, rank: int) -> list[int]:
    """Elements of each parameter in the piece of `rank` of its bucket, where there are some."""
    found = []
    for begin, end, bucket_begin, bucket_end in places:
        size = (bucket_end - bucket_begin) // ranks
        first = bucket_begin + rank * size
        found.append(max(min(end, first + size) - max(begin, first), 0))
    return [n for n in found if n]


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple

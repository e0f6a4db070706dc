"""What megatron-core says of a parameter's place in the whole model, as pieces of a checkpoint's tensors.

Everything here runs inside `platform.megatron()`, which the caller opens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensor, ShardedTensorFactory
from megatron.core.models.gpt import GPTModel

from gcpo_mcore.actor.adapter import adapters
from gcpo_mcore.actor.adapter_places import adapter_places
from gcpo_mcore.shards.piece import Piece, boxes

Sharded = ShardedTensor | ShardedTensorFactory  # one parameter's place; a factory has several, of gate and up


def places(chunks: Sequence[GPTModel]) -> list[Sharded]:
    """The place of every parameter of a stage's chunks that a checkpoint has, its `data` the parameter itself.

    Where an adapter is trained that is the adapter: its base is in a folder of its own.
    """
    if adapted := list(adapter_places(chunks)):
        return [*adapted]
    return [entry for entry in _entries(chunks) if isinstance(entry, Sharded)]


def objects(chunks: Sequence[GPTModel]) -> Iterator[tuple[str, Any]]:
    """(key, value) of what has a place in a checkpoint and is no tensor, and is this rank's to write.

    It is the '_extra_state' of layers that have none: megatron's own loader asks for them. An adapter has none.
    """
    for entry in _entries(chunks) if not adapters(chunks) else ():
        if isinstance(entry, ShardedObject) and is_first_replica(entry):
            yield entry.unique_key, entry.data


def values(place: Sharded) -> torch.Tensor:
    """The values of the parameter whose place it is."""
    assert place.data is not None  # it is of a model, not read from a file
    return place.data.detach()


def pieces(place: Sharded, flat: torch.Tensor, start: int = 0, prefix: str = "") -> Iterator[Piece]:
    """The pieces that `flat` [n] consists of: values for the n elements from `start` on of the parameter at `place`.

    prefix: of the tensors' names, for what is no weight but has a weight's shape.
    """
    for part, first in _parts(place, flat.dtype):
        low, high = max(first, start), min(first + part.data.numel(), start + len(flat))
        axes = (1,) * part.prepend_axis_num  # layers and experts are axes of the tensor, of size 1 here
        done = low
        for offset, sizes in boxes(tuple(part.local_shape), low - first, high - first):
            in_whole = tuple(a + b for a, b in zip(part.global_offset, (*(0 for _ in axes), *offset), strict=True))
            box = flat[done - start :][: prod(sizes)].view(*axes, *sizes)
            done += box.numel()
            yield Piece(prefix + part.key, tuple(part.global_shape), in_whole, box, part.allow_shape_mismatch)


def is_first_replica(place: Sharded | ShardedObject, shares_data: bool = False) -> bool:
    """Whether this rank writes what is there: of the ranks that have the same, one does.

    shares_data: every rank of a data-parallel group has values of its own, so that each of them writes.
    """
    replica = place.replica_id if isinstance(place.replica_id, tuple) else (place.replica_id,)
    return not any(replica[:-1] if shares_data else replica)  # (pipeline, tensor, data)


def _entries(chunks: Sequence[GPTModel]) -> Iterator[Any]:
    for chunk in chunks:
        yield from nested_values(chunk.sharded_state_dict(prefix=""))


def _parts(place: Sharded, dtype: torch.dtype) -> Iterator[tuple[Any, int]]:
    """(part, number of its first element in the parameter) of the tensors that a parameter is spread over."""
    outline = torch.empty(values(place).shape, dtype=dtype, device="meta")
    if isinstance(place, ShardedTensor):
        yield replace(place, data=outline, dtype=dtype), 0
        return
    for part in nested_values(replace(place, data=outline).build()):
        assert part.data.is_contiguous(), f"{place.key} is cut across its rows"
        yield part, part.data.storage_offset()

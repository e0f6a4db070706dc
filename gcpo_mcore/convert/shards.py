"""The weights of a checkpoint one tensor at a time, in one process, whatever layout wrote them.

megatron-core says where each parameter lies in the checkpoint; its model is built without memory (on torch's meta
device) for that.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.models.gpt import GPTModel

from gcpo_mcore.actor import hf_mapping
from gcpo_mcore.actor.config import ParallelConfig
from gcpo_mcore.actor.layout import Layout
from gcpo_mcore.actor.model import build_model
from gcpo_mcore.actor.sharded import pieces
from gcpo_mcore.base import platform
from gcpo_mcore.base.sums import Sum
from gcpo_mcore.hf.architecture import Architecture
from gcpo_mcore.shards.piece import Piece
from gcpo_mcore.shards.reading import Reading, read_index
from gcpo_mcore.shards.writing import write_file, write_index

ONE_PROCESS = ParallelConfig(
    tensor=1, pipeline=1, virtual_pipeline=1, context=1, expert=1, sequence=False, distributed_optimizer=False,
    overlap=False,
    recompute="none", threads=None, cpu_products="float32",
)  # fmt: skip
ONE_LAYOUT = Layout(world=1, tensor=1, pipeline=1, virtual_pipeline=1, context=1, data=1, expert=1)
Read = Callable[[str], torch.Tensor]


def empty_model(arch: Architecture, dtype: torch.dtype) -> GPTModel:
    """The whole model without memory for its weights, in evaluation mode."""
    with torch.device("meta"):
        return build_model(arch, ONE_PROCESS, ONE_LAYOUT, dtype, device=torch.device("meta")).eval()


class ShardReader:
    """`reader(name)` is the whole Megatron parameter of that name, read from `shards` at each call."""

    def __init__(self, shards: Path, model: GPTModel):
        self.shards, self.index = shards, read_index(shards)
        with platform.megatron():
            self.places = model.sharded_state_dict(prefix="")

    def __call__(self, name: str) -> torch.Tensor:
        place = self.places[name]
        whole = torch.empty(place.data.shape, dtype=place.data.dtype)
        with platform.megatron():
            wanted = list(pieces(place, whole.view(-1)))
        Reading(self.shards, wanted, self.index).fill()
        return whole


def hf_tensors(model: GPTModel, arch: Architecture, read: Read) -> Iterator[tuple[str, torch.Tensor]]:
    """Streams (Hugging Face name, tensor) of every weight; `read` gives Megatron parameters."""
    for local, _ in hf_mapping.local_parameters([model], arch):
        tensors = hf_mapping.join(local.rule.cut, [read(local.name)], arch)
        yield from zip(local.hf_names(0), tensors, strict=True)


def megatron_reader(model: GPTModel, arch: Architecture, read: Read, dtype: torch.dtype) -> Read:
    """A reader of Megatron parameters, from one of Hugging Face tensors: the inverse of `hf_tensors`."""
    rules = {local.name: local for local, _ in hf_mapping.local_parameters([model], arch)}

    def megatron(name: str) -> torch.Tensor:
        local = rules[name]
        return hf_mapping.cut(local.rule.cut, [read(n) for n in local.hf_names(0)], arch, 0, 1).to(dtype)

    return megatron


def write_shards(shards: Path, model: GPTModel, read: Read) -> dict[str, Sum]:
    """Writes the folder `shards` (which exists) as the actor would; `read` gives Megatron parameters, one at a time.

    Returns the sums of the files, by name.
    """
    with platform.megatron():
        places = model.sharded_state_dict(prefix="")
    # The '_extra_state' of layers that have none: megatron's own loader asks for it.
    objects = [(place.unique_key, place.data) for place in places.values() if isinstance(place, ShardedObject)]
    entries, own = write_file(shards / "__0_0.distcp", _weights(places, read), objects)
    return {"__0_0.distcp": own, **write_index(shards, entries, common={})}


def _weights(places: dict, read: Read) -> Iterator[Piece]:
    """The pieces of every parameter, which is read when it is its turn to be written."""
    for name, place in places.items():
        if isinstance(place, ShardedObject):
            continue
        flat = read(name).contiguous().view(-1)
        with platform.megatron():
            cut = list(pieces(place, flat))
        yield from cut

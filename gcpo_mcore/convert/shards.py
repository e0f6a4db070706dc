"""The weights of a checkpoint one tensor at a time, in one process, whatever layout wrote them.

megatron-core says where each parameter lies in the checkpoint; its model is built without memory (on torch's meta
device) for that. torch.distributed.checkpoint then reads and writes pieces of it.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensor
from megatron.core.models.gpt import GPTModel
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.state_dict_saver import save

from gcpo_mcore.actor import hf_mapping
from gcpo_mcore.actor.config import ParallelConfig
from gcpo_mcore.actor.layout import Layout
from gcpo_mcore.actor.model import build_model
from gcpo_mcore.actor.sharded import Sharded, load_sharded
from gcpo_mcore.base import platform
from gcpo_mcore.hf.architecture import Architecture

ONE_PROCESS = ParallelConfig(
    tensor=1, pipeline=1, virtual_pipeline=1, context=1, expert=1, sequence=False, distributed_optimizer=False,
    overlap=False,
    recompute="none", threads=None,
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
        self.shards = shards
        with platform.megatron():
            self.places = model.sharded_state_dict(prefix="")

    def __call__(self, name: str) -> torch.Tensor:
        place = self.places[name]
        pieces = _pieces(place)
        wanted = [dataclasses.replace(p, data=torch.empty(p.local_shape, dtype=p.dtype)) for p in pieces]
        with platform.megatron(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = load_sharded({"p": wanted}, self.shards, is_whole=False)["p"]
        if isinstance(place, ShardedTensor):
            return found[0].reshape(place.local_shape)
        return place.merge_fn([tensor.flatten(0, tensor.dim() - place.data.dim()) for tensor in found])


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


def write_shards(shards: Path, model: GPTModel, read: Read) -> None:
    """Writes the folder `shards` (which exists) as dist_checkpointing would; `read` gives Megatron parameters."""
    with platform.megatron():
        places = model.sharded_state_dict(prefix="")
    tensors: dict[str, _Pieces] = {}
    objects: dict[str, list] = {}
    for name, place in places.items():
        if isinstance(place, ShardedObject):  # the '_extra_state' of layers that have none: megatron asks for them
            objects[place.unique_key] = [place.data]
            continue
        for number, piece in enumerate(_pieces(place)):
            tensors.setdefault(piece.key, _Pieces()).add(piece, _reading(place, number, name, read))
    writer = FileSystemWriter(shards, thread_count=1)  # one thread: one piece in memory at a time
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it saves in a single process
        try:
            planner = _LatePlanner(flatten_state_dict=False)
            save({**tensors, **objects}, storage_writer=writer, planner=planner, no_dist=True)
        except CheckpointException as error:  # no Exception to Python; what a piece's reader raised is inside
            raise next(iter(error.failures.values()))[0] from None
    torch.save({}, shards / "common.pt")
    save_config(CheckpointingConfig("torch_dist"), str(shards))


def _pieces(place: Sharded) -> list[ShardedTensor]:
    """The places of one parameter: gate and up lie apart. Layers and experts are axes of the tensor, of size 1 here."""
    with platform.megatron():
        pieces = [place] if isinstance(place, ShardedTensor) else list(nested_values(place.build()))
    whole = []
    for piece in pieces:
        shape = (1,) * piece.prepend_axis_num + tuple(piece.local_shape)
        data = _data(piece).reshape(shape)
        whole.append(dataclasses.replace(piece, data=data, local_shape=shape, prepend_axis_num=0))
    return whole


def _data(piece: ShardedTensor) -> torch.Tensor:
    assert piece.data is not None  # it is the model's own, on the meta device, or what was read
    return piece.data


def _reading(place: Sharded, number: int, name: str, read: Read) -> Callable[[], torch.Tensor]:
    return lambda: _data(_pieces(dataclasses.replace(place, data=read(name)))[number]).contiguous()


class _Pieces:
    """One tensor of the checkpoint: its pieces by their offset in it, each with the function that makes it."""

    def __init__(self):
        self.items: dict[torch.Size, tuple[WriteItem, Callable[[], torch.Tensor]]] = {}

    def add(self, piece: ShardedTensor, read: Callable[[], torch.Tensor]) -> None:
        """One more piece, and how to make it."""
        offset = torch.Size(piece.global_offset)
        chunk = ChunkStorageMetadata(offset, torch.Size(piece.local_shape))
        data = TensorWriteData(chunk, TensorProperties(dtype=piece.dtype), torch.Size(piece.global_shape))
        self.items[offset] = (WriteItem(MetadataIndex(piece.key, offset), WriteItemType.SHARD, tensor_data=data), read)

    def __create_write_items__(self, name: str, _) -> list[WriteItem]:
        return [item for item, _ in self.items.values()]


class _LatePlanner(DefaultSavePlanner):
    """Makes a piece when it is its turn to be written."""

    def lookup_object(self, index: MetadataIndex):
        found = self.state_dict[index.fqn]
        if isinstance(found, _Pieces) and index.offset is not None:
            return found.items[index.offset][1]()
        return super().lookup_object(index)

"""Weights handed from process to process on one machine: CUDA IPC handles on GPUs, the bytes themselves on the CPU.

A server's GPU reads the copy that the trainer's rank on that GPU holds; only handles travel, by HTTP. (Shared memory
would do the same on the CPU, but its manager outlives the run for as long as a server does.)

Torch keeps a bucket's memory until every handle that was made was read, and counts no more than one reader of each: so
ranks whose bucket nobody reads make none, and every reader gets handles of its own.
"""

import base64
import io
import pickle
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.multiprocessing import reductions

from gcpo_mcore.base import platform
from gcpo_mcore.base.collectives import from_rank_0, to_rank_0
from gcpo_mcore.base.registry import transports
from gcpo_mcore.rollout.sglang.buckets import Bucket
from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.server import Server, ServerLost

DEVICE = 6  # the place of the device among the arguments of torch's rebuild_cuda_tensor, in all its versions
Named = list[tuple[str, torch.Tensor]]


@transports.register
class TensorTransport:
    """See the module."""

    def __init__(self, config: SglangConfig, model_folder: str):
        self.servers: list[Server] = []
        self.version = -1
        self.read: list[list[int]] = []  # of each server, the ranks that its GPUs read; empty when a push has failed

    def pack(self, bucket: Bucket) -> list[list[str]]:
        """On rank 0, for every rank what its readers are to have, one after another (on the CPU, rank 0's own bytes);
        [] elsewhere."""
        if not platform.HAS_CUDA:
            return [[by_value(bucket.tensors)]] if dist.get_rank() == 0 else []
        readers = from_rank_0(Counter(rank for ranks in self.read for rank in ranks))
        return to_rank_0([handles(bucket.tensors) for _ in range(readers[dist.get_rank()])]) or []

    def begin(self, servers: list[Server], version: int) -> None:
        self.servers, self.version = servers, version
        self.read = ranks_read(servers, dist.get_world_size() if platform.HAS_CUDA else 1)
        for server in servers:
            server.begin_update()

    def send(self, bucket: Bucket, packed: list[list[str]]) -> None:
        def give(server: Server, tensors: list[str]) -> None:
            payload = {
                "serialized_named_tensors": tensors,
                "load_format": None,
                "flush_cache": bucket.is_last,
                "weight_version": str(self.version) if bucket.is_last else None,
            }
            server.call("/update_weights_from_tensor", payload)

        dealt = deal(packed, self.read, is_shared=not platform.HAS_CUDA)
        try:
            with ThreadPoolExecutor(len(self.servers)) as pool:
                list(pool.map(give, self.servers, dealt))
        except ServerLost:
            self.give_up()
            raise

    def end(self) -> None:
        for server in self.servers:
            server.end_update()

    def give_up(self) -> None:
        """No handles are made any more: nobody would read them."""
        self.read = []


def ranks_read(servers: Sequence[Server], world: int) -> list[list[int]]:
    """For each server and each of its GPUs the rank that is on it. A server that has GPUs of its own reads as if it
    stood beside the first ranks; GPUs beyond the last rank begin again with the first."""
    found = []
    for number, server in enumerate(servers):
        gpus = server.info().tensor_parallel
        first = number * gpus if server.first_rank is None else server.first_rank
        found.append([rank % world for rank in range(first, first + gpus)])
    return found


def deal(packed: Sequence[Sequence[str]], read: Sequence[Sequence[int]], is_shared: bool) -> list[list[str]]:
    """For each server what its GPUs are to have, of what each rank `packed`: each a copy of its own, unless bytes are
    `is_shared`."""
    left = [iter(copies) for copies in packed]
    return [[packed[rank][0] if is_shared else next(left[rank]) for rank in ranks] for ranks in read]


def handles(tensors: Named) -> str:
    """The pickled list of tensors, whose storage is a handle: what a server unpickles, once."""
    for name, tensor in tensors:
        if not tensor.is_cuda:  # its handle would be a file descriptor, of which the server dies
            raise RuntimeError(f"phase sync: {name} is on the {tensor.device.type}, not on a GPU")
    out = io.BytesIO()
    HandlePickler(out).dump(tensors)
    return base64.b64encode(out.getvalue()).decode()


class HandlePickler(ForkingPickler):
    """Pickles tensors on a GPU as torch does, with the GPU's UUID for its number: the server may see others (SGLang's
    patch_torch.py takes both)."""

    def reducer_override(self, obj: Any) -> Any:
        """See pickle.Pickler."""
        if not isinstance(obj, torch.Tensor):
            return NotImplemented
        rebuild, arguments = reductions.reduce_tensor(obj)
        return rebuild, by_uuid(arguments, str(torch.cuda.get_device_properties(obj.device).uuid))


def by_uuid(arguments: tuple, uuid: str) -> tuple:
    """The arguments of rebuild_cuda_tensor, with `uuid` in the place of the device's number."""
    return (*arguments[:DEVICE], uuid, *arguments[DEVICE + 1 :])


def by_value(tensors: Named) -> str:
    """The same as `handles` with the tensors' bytes; each of them in storage of its own, which is what is pickled."""
    return base64.b64encode(pickle.dumps([(name, tensor.clone()) for name, tensor in tensors])).decode()

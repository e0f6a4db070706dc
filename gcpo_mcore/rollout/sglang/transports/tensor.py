"""Weights handed from process to process on one machine: CUDA IPC handles on GPUs, the bytes themselves on the CPU.

A server's GPU reads the copy that the trainer's rank on that GPU holds; only handles travel, by HTTP. (Shared memory
would do the same on the CPU, but its manager outlives the run for as long as a server does.)
"""

import base64
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler

import torch
import torch.distributed as dist
import torch.multiprocessing

from gcpo_mcore.base import platform
from gcpo_mcore.base.registry import transports
from gcpo_mcore.rollout.sglang.buckets import Bucket
from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.server import Server


@transports.register
class TensorTransport:
    """See the module."""

    def __init__(self, config: SglangConfig, model_folder: str):
        self.servers: list[Server] = []
        self.version = -1

    def pack(self, bucket: Bucket) -> list[str]:
        """On rank 0 every rank's handles, in order (on the CPU, its own bytes); [] elsewhere."""
        is_sender = dist.get_rank() == 0
        if not platform.HAS_CUDA:
            return [_by_value(bucket.tensors)] if is_sender else []
        gathered = [""] * dist.get_world_size() if is_sender else None
        dist.gather_object(_handles(bucket.tensors), gathered)
        return gathered or []

    def begin(self, servers: list[Server], version: int) -> None:
        self.servers, self.version = servers, version
        for server in servers:
            server.begin_update()

    def send(self, bucket: Bucket, packed: list[str]) -> None:
        def give(number: int, server: Server) -> None:
            gpus = server.info().tensor_parallel
            first = number * gpus if server.first_rank is None else server.first_rank
            ranks = range(first, first + gpus)
            payload = {
                "serialized_named_tensors": [packed[rank % len(packed)] for rank in ranks],
                "load_format": None,
                "flush_cache": bucket.is_last,
                "weight_version": str(self.version) if bucket.is_last else None,
            }
            server.call("/update_weights_from_tensor", payload)

        with ThreadPoolExecutor(len(self.servers)) as pool:
            list(pool.map(give, range(len(self.servers)), self.servers))

    def end(self) -> None:
        for server in self.servers:
            server.end_update()

    def give_up(self) -> None:
        pass


def _handles(tensors: list[tuple[str, torch.Tensor]]) -> str:
    """The pickled list of tensors, whose storage is a handle: what the servers unpickle.

    A handle names its GPU by number, so trainer and server must see the same GPUs.
    """
    out = io.BytesIO()
    ForkingPickler(out).dump(tensors)
    return base64.b64encode(out.getvalue()).decode()


def _by_value(tensors: list[tuple[str, torch.Tensor]]) -> str:
    """The same with the tensors' bytes; each of them in storage of its own, which is what is pickled."""
    return base64.b64encode(pickle.dumps([(name, tensor.clone()) for name, tensor in tensors])).decode()

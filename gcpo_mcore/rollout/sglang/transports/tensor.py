"""Weights through memory that trainer and servers share: CUDA IPC on a GPU, shared memory on the CPU.

A server's GPU reads the copy that the trainer's rank on that GPU holds; only handles travel, by HTTP.
"""

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing  # teaches ForkingPickler tensors

from gcpo_mcore.rollout.sglang.buckets import Bucket
from gcpo_mcore.rollout.sglang.server import Server


class TensorTransport:
    """See the module."""

    def __init__(self):
        # The default passes file descriptors to processes of one family; a server is of another.
        multiprocessing.set_sharing_strategy("file_system")
        self.servers: list[Server] = []
        self.version = -1

    def pack(self, bucket: Bucket) -> list[str]:
        """On rank 0 every rank's handles, in order; [] elsewhere."""
        gathered = [""] * dist.get_world_size() if dist.get_rank() == 0 else None
        dist.gather_object(_handles(bucket.tensors), gathered)
        return gathered or []

    def begin(self, servers: list[Server], version: int) -> None:
        self.servers, self.version = servers, version
        for server in servers:
            server.begin_update()

    def send(self, bucket: Bucket, packed: list[str]) -> None:
        def give(number: int, server: Server) -> None:
            ranks = range(number * server.tensor_parallel, (number + 1) * server.tensor_parallel)
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
    shared = [(name, tensor if tensor.is_cuda else tensor.share_memory_()) for name, tensor in tensors]
    ForkingPickler(out).dump(shared)
    return base64.b64encode(out.getvalue()).decode()

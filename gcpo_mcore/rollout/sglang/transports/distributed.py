"""Weights by a broadcast group of the trainer's rank 0 and every server's GPUs: NCCL, or gloo on the CPU."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore  # torch.distributed's, which its stubs leave out
from torch.distributed import distributed_c10d as c10d

from gcpo_mcore.base import platform
from gcpo_mcore.base.http_json import own_address
from gcpo_mcore.base.registry import transports
from gcpo_mcore.rollout.sglang.buckets import Bucket
from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.server import Server, ServerLost

NEW_GROUP: Callable[..., tuple[object, object]] = c10d._new_process_group_helper  # its types change with the version


@transports.register
class DistributedTransport:
    """The group lasts as long as its servers do."""

    def __init__(self, config: SglangConfig, model_folder: str):
        self.deadline_s = config.sync_deadline_s
        self.members: list[tuple[Server, int]] = []  # and how often it had been lost when it joined
        self.group: dist.ProcessGroup | None = None
        self.name, self.count = "", 0
        self.version = -1

    @property
    def servers(self) -> list[Server]:
        """Those of the group."""
        return [server for server, _ in self.members]

    def pack(self, bucket: Bucket) -> None:
        """Nothing: rank 0's copy is what is sent."""

    def begin(self, servers: list[Server], version: int) -> None:
        self.version = version
        members = [(server, server.losses) for server in servers]  # one that was lost since has no group any more
        if self.group is None or members != self.members:
            self.give_up()
            self.members = members
            self._join()
        for server in servers:
            server.begin_update()

    def _join(self) -> None:
        """A new group: rank 0 is the trainer's, then each server's GPUs."""
        self.count += 1
        self.name = f"gcpo_weights_{self.count}"
        farthest = min(self.servers, key=lambda server: server.is_local)
        host = own_address(*farthest.place)
        # The port is ours from now on: nobody takes it between choosing and using it.
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=self.deadline_s))
        world = 1 + sum(server.info().tensor_parallel for server in self.servers)
        calls, offset = [], 1
        with ThreadPoolExecutor(len(self.servers)) as pool:
            for server in self.servers:
                payload = {
                    "master_address": host,
                    "master_port": store.port,
                    "rank_offset": offset,
                    "world_size": world,
                    "group_name": self.name,
                    "backend": platform.backend(),
                }
                calls.append(pool.submit(server.call, "/init_weights_update_group", payload))
                offset += server.info().tensor_parallel
            try:
                self.group = _new_group(store, world, self.name, self.deadline_s)
            except (RuntimeError, ValueError) as error:  # torch's own errors: a member that never came
                _first_failure(calls)
                raise ServerLost(f"weights' broadcast group: {error}") from None
            _first_failure(calls)

    def send(self, bucket: Bucket, packed: None) -> None:
        assert self.group is not None, "send comes after begin"
        payload = {
            "names": [name for name, _ in bucket.tensors],
            "dtypes": [str(tensor.dtype).removeprefix("torch.") for _, tensor in bucket.tensors],
            "shapes": [list(tensor.shape) for _, tensor in bucket.tensors],
            "group_name": self.name,
            "load_format": "flattened_bucket",
            "flush_cache": bucket.is_last,
            "weight_version": str(self.version) if bucket.is_last else None,
        }
        with ThreadPoolExecutor(len(self.servers)) as pool:
            calls = [pool.submit(s.call, "/update_weights_from_distributed", payload) for s in self.servers]
            try:
                work = self.group.broadcast([bucket.flat], _from_rank_0())
                work.wait(timedelta(seconds=self.deadline_s))
            except RuntimeError as error:
                _first_failure(calls)
                raise ServerLost(f"weights' broadcast: {' '.join(str(error).split())[:200]}") from None
            _first_failure(calls)

    def end(self) -> None:
        for server in self.servers:
            server.end_update()

    def give_up(self) -> None:
        if self.group is not None:
            self.group.abort() if platform.HAS_CUDA else None
            self.group = None
        self.members = []


def _new_group(store: c10d.Store, world: int, name: str, deadline_s: float) -> dist.ProcessGroup:
    """A group outside the trainer's default one, met in `store` under the names that SGLang's side uses."""
    group, _ = NEW_GROUP(
        world,
        0,
        [],
        dist.Backend(platform.backend()),
        c10d.PrefixStore(name, store),
        group_name=name,
        timeout=timedelta(seconds=deadline_s),
    )
    if not isinstance(group, dist.ProcessGroup):
        raise RuntimeError(f"torch made no group {name}")
    c10d._world.pg_group_ranks[group] = {rank: rank for rank in range(world)}
    return group


def _from_rank_0() -> dist.BroadcastOptions:
    options = dist.BroadcastOptions()
    options.rootRank, options.rootTensor = 0, 0
    return options


def _first_failure(calls: list[Future]) -> None:
    """Waits for the calls; raises the first one's ServerLost."""
    failures = [call.exception() for call in calls]
    for failure in failures:
        if failure is not None:
            raise failure

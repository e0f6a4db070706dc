"""Hands a version's weights to all servers that can be had: the part that every transport shares.

A collective over all ranks: each draws the stream, rank 0 sends it, one bucket while the next is gathered. A server
serves only what was pushed to its end; one that fails on the way is given up and the push begins anew without it.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch.distributed as dist

from gcpo_mcore.base import platform
from gcpo_mcore.base.collectives import from_rank_0
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.rollout.engine import Weights
from gcpo_mcore.rollout.sglang.adapter import AdapterSync
from gcpo_mcore.rollout.sglang.buckets import Bucket, buckets
from gcpo_mcore.rollout.sglang.checksums import Checksums
from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.fleet import Fleet
from gcpo_mcore.rollout.sglang.server import Server, ServerLost
from gcpo_mcore.rollout.sglang.transports import Transport

Way = Transport | AdapterSync  # of all weights, or of the adapter alone


def push(weights: Weights, config: SglangConfig, way: Way, fleet: Fleet | None) -> int:
    """Hands over all weights, or the adapter, and returns the bytes. `fleet` is rank 0's. UserError if no server can be
    had."""
    failure: ServerLost | None = None
    for _ in range(config.attempts):
        servers: list[Server] = []
        if fleet is not None:
            servers = fleet.ready()
            fleet.serving = []  # of what they have, nothing is served until the push has ended
        if isinstance(way, AdapterSync):
            failure, size = _try_adapter(weights, way, servers)
        else:
            failure, size = _try(weights, config, way, servers)
        if fleet is not None:
            if failure is None:
                fleet.serving = servers
            else:
                if not isinstance(way, AdapterSync):
                    way.give_up()
                _lose(fleet, servers, failure)
        if from_rank_0(failure is None):
            return size
    raise UserError(f"phase sync: {config.attempts} tries to hand over the weights failed, the last: {failure}")


def _try_adapter(weights: Weights, way: AdapterSync, servers: list[Server]) -> tuple[ServerLost | None, int]:
    """As `_try`, with the adapter alone."""
    adapter, failure, size = weights.adapter(), None, 0
    if servers:
        try:
            size = way.push(adapter, servers, weights.version)
            _check_version(servers, weights.version)
        except ServerLost as error:
            failure = error
    dist.barrier()
    return failure, size


def _try(
    weights: Weights, config: SglangConfig, transport: Transport, servers: list[Server]
) -> tuple[ServerLost | None, int]:
    """One try, with these servers (rank 0's): what went wrong, and the bytes of the weights."""
    is_sender = bool(servers)
    failure: ServerLost | None = None
    sums = Checksums(servers) if is_sender and config.verify_sync else None
    sent: Future | None = None
    under_way: Bucket | None = None
    size = 0
    with ThreadPoolExecutor(1) as sender:
        if is_sender:
            failure = _failure_of(transport.begin, servers, weights.version)
        for bucket in buckets(weights.export(), config.bucket_mib * 2**20):
            packed = transport.pack(bucket)
            size += bucket.flat.nbytes
            if sums is not None:
                for name, tensor in bucket.tensors:
                    sums.add(name, tensor)
            if sent is not None:
                failure = failure or _failure_of(sent.result)
            # A bucket's memory may be shared with the servers: no rank lets it go before rank 0 has sent it.
            dist.barrier()
            under_way = bucket
            sent = sender.submit(transport.send, bucket, packed) if is_sender and failure is None else None
        if sent is not None:
            failure = failure or _failure_of(sent.result)
        dist.barrier()
        del under_way
    platform.collect_handed_over()
    if is_sender and failure is None:
        failure = _failure_of(_finish, transport, servers, weights.version, sums)
    return failure, size


def _finish(transport: Transport, servers: list[Server], version: int, sums: Checksums | None) -> None:
    transport.end()
    _check_version(servers, version)
    if sums is not None:
        sums.compare()


def _check_version(servers: list[Server], version: int) -> None:
    for server in servers:
        found = server.weight_version()
        if found != str(version):
            raise ServerLost(f"{server}: weight version {found} after the sync, not {version}", server)


def _failure_of(call: Callable[..., object], *arguments: object) -> ServerLost | None:
    try:
        call(*arguments)
    except ServerLost as error:
        return error
    return None


def _lose(fleet: Fleet, servers: list[Server], failure: ServerLost) -> None:
    """Gives up the server that failed; if that is not known, those that do not answer."""
    guilty = [failure.server] if failure.server else [s for s in servers if not s.is_up(fleet.config.health_deadline_s)]
    for server in guilty:
        fleet.lose(server, f"phase sync: {failure}")


class SyncTimes:
    """Pushes, and adds up their seconds and bytes for the metrics."""

    def __init__(self):
        self.seconds = self.bytes = 0.0

    def push(self, weights: Weights, config: SglangConfig, way: Way, fleet: Fleet | None) -> None:
        """Pushes, and adds what it took. UserError as `push`."""
        started = time.monotonic()
        self.bytes += push(weights, config, way, fleet)
        self.seconds += time.monotonic() - started

    def metrics(self) -> dict[str, float]:
        """Seconds and GB/s since the last call; nothing if there was no sync."""
        seconds, size = self.seconds, self.bytes
        self.seconds = self.bytes = 0.0
        return {"sync/seconds": seconds, "sync/gb_per_s": size / seconds / 1e9} if seconds else {}

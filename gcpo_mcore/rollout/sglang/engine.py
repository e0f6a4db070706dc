"""The SGLang engine: servers beside the run or elsewhere, asked by rank 0 for all ranks.

Its parts: servers (fleet, process, node, router, server), requests (coordinator, job, dispatch, server_loop, ledger,
backlog, replies), weights (push, buckets, checksums, transports, adapter).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch.distributed as dist

from gcpo_mcore.base import platform
from gcpo_mcore.base.collectives import from_every_rank, from_rank_0
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.registry import engines, transports
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Engine, Job, Leftovers, Request, Weights
from gcpo_mcore.rollout.sglang.adapter import AdapterSync
from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.coordinator import Coordinator
from gcpo_mcore.rollout.sglang.fleet import Fleet
from gcpo_mcore.rollout.sglang.job import SglangJob
from gcpo_mcore.rollout.sglang.keys import own_key
from gcpo_mcore.rollout.sglang.node import NodeServers, leads_another_node
from gcpo_mcore.rollout.sglang.push import SyncTimes
from gcpo_mcore.rollout.sglang.replies import Form
from gcpo_mcore.samples import Sample


@engines.register
class SglangEngine(Engine):
    """See the module. Every method is a collective over all ranks; only rank 0 knows the servers."""

    Config = SglangConfig

    def __init__(
        self,
        config: SglangConfig,
        model_folder: str,
        dtype: str,
        stop_token_ids: list[int],
        decode: Callable[[list[int]], str],
    ):
        self.config, self.stop, self.decode = config, sorted(set(stop_token_ids)), decode
        arch = read_architecture(model_folder)
        self.vocabulary = arch.vocabulary
        self.routing: tuple[int, int] | None = None
        if config.replay_routing:
            if not arch.experts_per_token:
                raise UserError(f"rollout.replay_routing=true: {model_folder} is a model without experts")
            self.routing = (arch.layers, arch.experts_per_token)
        self.transport = transports.get(config.transport)(config, model_folder)
        self.adapter = AdapterSync(config, model_folder) if config.sends_adapter else None
        self.version = -1
        self.weights: Weights | None = None
        self.times = SyncTimes()
        self.fleet, self.node = self._start_servers(model_folder, dtype)
        self.coordinator = Coordinator(config, self.fleet, self._form) if self.fleet else None
        self.rest()  # the actor comes back before there are weights to serve

    def _start_servers(self, model_folder: str, dtype: str) -> tuple[Fleet | None, NodeServers | None]:
        """On rank 0 the fleet; on the first ranks of the other nodes the servers there."""
        fleet = node = None
        logs = Path(self.config.log_folder)
        free = from_every_rank(platform.free_device_bytes())  # the actor has left what it can
        key = from_rank_0(own_key(self.config))
        if self.config.start_servers and leads_another_node():
            node = NodeServers(self.config, model_folder, dtype, logs, free, key)
        kept = from_every_rank(node.addresses() if node else [])
        if dist.get_rank() == 0:
            addresses = [one for of_rank in kept for one in of_rank]
            fleet = Fleet(self.config, model_folder, dtype, logs, addresses, free, key)
        if node:
            node.wait()
        dist.barrier()
        return fleet, node

    def _form(self, sampling: Sampling) -> Form:
        adapter = self.adapter.name(self.version) if self.adapter else None
        return Form(sampling, self.stop, self.version, self.decode, self.routing, adapter)

    # --- weights -----------------------------------------------------------------------------------------------

    def update_weights(self, weights: Weights) -> None:
        """See `Engine.update_weights`. UserError if no server can be had."""
        self.weights = weights
        self._sync()

    def _sync(self) -> None:
        """Hands the weights over; jobs under way pause, and go on with the new ones.

        On a GPU that servers and actor share there is never room for both: first comes the servers' memory for weights,
        and their cache when the actor's weights have left on every rank.
        """
        if self.weights is None:
            raise RuntimeError("phase sync: the engine was never given weights")
        if self.coordinator:
            self.coordinator.pause()
        self.version = self.weights.version
        if self.node:
            self.node.is_resting = False
        self.times.push(self.weights, self.config, self.adapter or self.transport, self.fleet)
        self.weights.offload()
        dist.barrier()
        if self.coordinator:
            self.coordinator.resume()

    def rest(self) -> None:
        """With rollout.memory_saver, the servers' weights and KV cache leave the GPU until the next sync."""
        if not self.config.rests:
            return
        if self.node:
            self.node.rest()
        dist.barrier()
        if self.fleet:
            self.fleet.rest()
        self.version = -1
        dist.barrier()

    # --- generation: rank 0 asks the servers, in threads; only `begin` and `finish` have collectives ---------------

    def begin(self, requests: list[Request], sampling: Sampling, enough: int | None = None) -> SglangJob:
        """See `Engine.begin`. UserError, naming it, for a token outside the vocabulary: it would kill a server."""
        self._check(requests)
        shares: list[list[Request]] = [[] for _ in range(dist.get_world_size())]
        dist.gather_object(requests, shares if self.coordinator else None)
        work = self.coordinator.begin(shares, sampling, enough) if self.coordinator else None
        return SglangJob(requests, sampling, work)

    def finish(self, job: SglangJob) -> Sequence[Sample | None]:
        """See `Engine.finish`."""
        while not self._is_answered(job):
            self._sync()  # every server was lost; those that came back have no weights
        answers = self.coordinator.finish(job.work) if self.coordinator and job.work else None
        mine: list[list[Sample | None]] = [[]]
        dist.scatter_object_list(mine, answers)
        return mine[0]

    def sampled(self, job: Job | None) -> Leftovers:
        """See `Engine.sampled`."""
        if not self.coordinator:
            return {}
        if job is None:
            return dict(self.coordinator.leftovers)
        return self.coordinator.sampled(job.work) if isinstance(job, SglangJob) and job.work else {}

    def take_over(self, sampled: Leftovers, is_of_a_job: bool) -> None:
        """See `Engine.take_over`."""
        if self.coordinator and is_of_a_job:
            self.coordinator.taken_over = sampled
        elif self.coordinator:
            self.coordinator.leftovers = sampled

    def _is_answered(self, job: SglangJob) -> bool:
        """Whether rank 0 has all that is wanted, once the servers are at an end with it."""
        return from_rank_0(self.coordinator.is_answered(job.work) if self.coordinator and job.work else False)

    def _check(self, requests: list[Request]) -> None:
        for request in requests:
            outside = [token for token in request.prompt.token_ids if not 0 <= token < self.vocabulary]
            if outside or not request.prompt.token_ids:
                raise UserError(
                    f"phase sample: prompt {request.prompt.id} has "
                    + (f"token {outside[0]}, the model {self.vocabulary} tokens" if outside else "no tokens")
                )

    # --- the rest ----------------------------------------------------------------------------------------------

    def metrics(self) -> dict[str, float]:
        """Seconds and speed of the syncs, servers lost and started anew, requests sent again; since the last call."""
        return from_rank_0(self.times.metrics() | self.coordinator.metrics() if self.coordinator else {})

    def close(self) -> None:
        """Drops what is under way and ends the servers that the run started."""
        if self.coordinator:
            self.coordinator.close()
        if self.node:
            self.node.close()

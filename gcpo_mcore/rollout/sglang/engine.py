"""The SGLang engine: servers beside the run or elsewhere, asked by rank 0 for all ranks.

gcpo_mcore/rollout/sglang/ has its parts: processes and their health (fleet), requests (backlog, dispatch), weights
(push).
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import torch.distributed as dist

from gcpo_mcore.base.collectives import from_rank_0
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.registry import engines, transports
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Engine, Job, Request, Weights
from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.dispatch import Dispatch
from gcpo_mcore.rollout.sglang.fleet import Fleet
from gcpo_mcore.rollout.sglang.node import NodeServers, leads_another_node
from gcpo_mcore.rollout.sglang.push import SyncTimes
from gcpo_mcore.rollout.sglang.replies import Form
from gcpo_mcore.rollout.sglang.router import Router
from gcpo_mcore.rollout.sglang.server import Server
from gcpo_mcore.samples import Sample


@dataclass(eq=False)
class SglangJob(Job):
    """Of all ranks, on rank 0: `shares` their requests, `found` the samples so far by number of the request.

    `asking` is under way with what `dispatch` has of it.
    """

    shares: list[list[Request]]
    enough: int | None = None
    found: dict[int, Sample] = field(default_factory=dict)
    begun: dict[int, Sample] = field(default_factory=dict)  # tokens of requests that are not whole
    missing: list[int] = field(default_factory=list)  # the numbers of the dispatch's requests
    dispatch: Dispatch | None = None
    asking: Future | None = None

    def __post_init__(self):
        self.everything = [request for share in self.shares for request in share]

    def wanted(self) -> int:
        """How many prompts must still become whole."""
        prompts = {request.prompt.id for request in self.everything}
        open_ = {request.prompt.id for number, request in enumerate(self.everything) if number not in self.found}
        return min(self.enough or len(prompts), len(prompts)) - len(prompts - open_)

    def collect(self) -> int:
        """Takes what the dispatch has, once it is at its end; how many requests it sent again."""
        if self.dispatch is None:
            return 0
        done, self.dispatch = self.dispatch, None
        self.found.update({self.missing[place]: sample for place, sample in done.samples.items()})
        self.begun = {self.missing[place]: sample for place, sample in done.begun.items()}
        return done.again


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
        self.routing = (arch.layers, arch.experts_per_token) if config.replay_routing else None
        if config.replay_routing and not arch.experts:
            raise UserError(f"rollout.replay_routing=true: {model_folder} is a model without experts")
        self.transport = transports.get(config.transport)(config, model_folder)
        self.version = -1
        self.weights: Weights | None = None
        self.times = SyncTimes()
        self.sent_again = self.continued = 0
        self.left: dict[tuple[str, int], tuple[Sample, bool]] = {}  # of prompts that come again; whether it is whole
        self.router = Router(config.router, config.sync_deadline_s) if config.router else None
        self.under_way: list[SglangJob] = []  # of rank 0: begun and not finished
        self.threads = ThreadPoolExecutor(config.max_staleness + 2, "sglang requests")  # the steps', an evaluation's
        self.lock = threading.Lock()
        self.fleet, self.node = self._start_servers(model_folder, dtype)

    def _start_servers(self, model_folder: str, dtype: str) -> tuple[Fleet | None, NodeServers | None]:
        """On rank 0 the fleet; on the first ranks of the other nodes the servers there."""
        fleet = node = None
        logs = Path(self.config.log_folder)
        if self.config.start_servers and leads_another_node():
            node = NodeServers(self.config, model_folder, dtype, logs)
        kept: list[list[tuple[str, int]]] = [[]] * dist.get_world_size()
        dist.all_gather_object(kept, node.addresses() if node else [])
        if dist.get_rank() == 0:
            fleet = Fleet(self.config, model_folder, dtype, logs, [one for of_rank in kept for one in of_rank])
        if node:
            node.wait()
        dist.barrier()
        return fleet, node

    def update_weights(self, weights: Weights) -> None:
        """See `Engine.update_weights`. UserError if no server can be had."""
        self.weights = weights
        self._sync()

    def _sync(self) -> None:
        """Hands the weights over; jobs under way pause, and go on with the new ones."""
        self._pause()
        if self.fleet:
            self.fleet.wake("weights")
        self.version = self.weights.version
        self.times.timed(self.weights, self.config, self.transport, self.fleet)
        if self.fleet:
            self.fleet.wake("kv_cache", "cuda_graph")
            self.fleet.resting = []
            if self.router:
                self.router.admit(self.fleet.serving)
        for job in self.under_way:
            self._ask(job)

    def _lose(self, server: Server, reason: str) -> None:
        """Called by the jobs' threads, more than one of which may see it."""
        with self.lock:
            if server in self.fleet.serving:
                if self.router:
                    self.router.remove(server)
                self.fleet.lose(server, reason)

    # --- generation: rank 0 asks the servers, in threads; only `begin` and `finish` have collectives ---------------

    def begin(self, requests: list[Request], sampling: Sampling, enough: int | None = None) -> SglangJob:
        """See `Engine.begin`. UserError, naming it, for a token outside the vocabulary: it would kill a server."""
        self._check(requests)
        shares: list[list[Request]] = [[] for _ in range(dist.get_world_size())]
        dist.gather_object(requests, shares if self.fleet else None)
        job = SglangJob(requests, sampling, shares, enough)
        if self.fleet:
            if enough is not None:
                self._take_up(job)
            self.under_way.append(job)
            self._ask(job)
        return job

    def finish(self, job: SglangJob) -> list[Sample | None]:
        """See `Engine.finish`."""
        while not self._is_done(job):
            self._sync()  # every server was lost; those that came back have no weights
        answers = None
        if self.fleet:
            self.under_way.remove(job)
            if job.enough is not None:
                self._leave(job)
            rows = iter(range(len(job.everything)))
            answers = [[job.found.get(next(rows)) for _ in share] for share in job.shares]
        mine: list[list[Sample | None]] = [[]]
        dist.scatter_object_list(mine, answers)
        return mine[0]

    def _take_up(self, job: SglangJob) -> None:
        """Gives a job what an earlier one left of its requests."""
        for number, request in enumerate(job.everything):
            sample, is_whole = self.left.pop(_name(request), (None, False))
            if sample is not None:
                (job.found if is_whole else job.begun)[number] = sample
                self.continued += is_whole
        self.left = {}

    def _leave(self, job: SglangJob) -> None:
        """Drops the samples of all prompts but the first `enough` whole ones; with rollout.partial they are kept
        for when the prompt comes again."""
        used: dict[str, bool] = {}
        for number, request in enumerate(job.everything):
            used[request.prompt.id] = used.get(request.prompt.id, True) and number in job.found
        whole = [prompt for prompt, is_whole in used.items() if is_whole][: job.enough]
        for number, request in enumerate(job.everything):
            if request.prompt.id not in whole:
                sample = job.found.pop(number, None)
                if self.config.partial and (sample or number in job.begun):
                    self.left[_name(request)] = (sample or job.begun[number], sample is not None)

    def _is_done(self, job: SglangJob) -> bool:
        """Whether the servers answered everything, once they are at an end with it."""
        if self.fleet:
            job.asking.result()
            self.sent_again += job.collect()
        return from_rank_0(self.fleet is None or job.wanted() <= 0)

    def _pause(self) -> None:
        """Waits until the servers have nothing under way."""
        for job in self.under_way:
            if job.dispatch is not None:
                job.dispatch.pause()
        wait([job.asking for job in self.under_way])
        for job in self.under_way:
            if job.asking.exception() is None:  # else `finish` raises it
                self.sent_again += job.collect()

    def _ask(self, job: SglangJob) -> None:
        """Has the serving servers asked for what the job lacks."""
        if job.asking is not None and (job.asking.exception() is not None or job.wanted() <= 0):
            return
        job.missing = [number for number in range(len(job.everything)) if number not in job.found]
        begun = {place: job.begun[number] for place, number in enumerate(job.missing) if number in job.begun}
        self.continued += len(begun)
        job.dispatch = Dispatch(
            self.config,
            self.fleet.serving,
            [job.everything[number] for number in job.missing],
            Form(job.sampling, self.stop, self.version, self.decode, self.routing),
            self._lose,
            job.wanted(),
            self.router,
            begun,
        )
        job.asking = self.threads.submit(job.dispatch.run)

    def _check(self, requests: list[Request]) -> None:
        for request in requests:
            outside = [token for token in request.prompt.token_ids if not 0 <= token < self.vocabulary]
            if outside or not request.prompt.token_ids:
                raise UserError(
                    f"phase sample: prompt {request.prompt.id} has "
                    + (f"token {outside[0]}, the model {self.vocabulary} tokens" if outside else "no tokens")
                )

    def rest(self) -> None:
        """With rollout.memory_saver, the servers' weights and KV cache leave the GPU until the next sync."""
        if self.config.memory_saver:
            if self.fleet:
                self.fleet.rest()
            self.version = -1

    def metrics(self) -> dict[str, float]:
        """Seconds and speed of the syncs, servers lost and started anew, requests sent again; since the last call."""
        found: dict[str, float] = {}
        if self.fleet:
            counts = {"rollout/sent_again": float(self.sent_again), "rollout/continued": float(self.continued)}
            found = self.times.take() | self.fleet.take() | counts
            self.sent_again = self.continued = 0
        return from_rank_0(found)

    def close(self) -> None:
        """Drops what is under way and ends the servers that the run started."""
        for job in self.under_way:
            if job.dispatch is not None:
                job.dispatch.cancel()
        self.threads.shutdown(cancel_futures=True)
        if self.fleet:
            self.fleet.close()
        if self.node:
            self.node.close()


def _name(request: Request) -> tuple[str, int]:
    return request.prompt.id, request.index

"""The SGLang engine: servers beside the run or elsewhere, asked by rank 0 for all ranks.

gcpo_mcore/rollout/sglang/ has its parts: processes and their health (fleet), requests (dispatch), weights (push).
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import torch.distributed as dist

from gcpo_mcore.collectives import from_rank_0
from gcpo_mcore.errors import UserError
from gcpo_mcore.registry import engines
from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Engine, Job, Request, Weights
from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.dispatch import Dispatch
from gcpo_mcore.rollout.sglang.fleet import Fleet
from gcpo_mcore.rollout.sglang.push import SyncTimes
from gcpo_mcore.rollout.sglang.router import Router
from gcpo_mcore.rollout.sglang.server import Server
from gcpo_mcore.rollout.sglang.transports import build_transport
from gcpo_mcore.samples import Sample


@dataclass
class SglangJob(Job):
    """Of all ranks, on rank 0: `shares` their requests, `found` the samples so far by number of the request."""

    shares: list[list[Request]]
    version: int
    enough: int | None = None
    found: dict[int, Sample] = field(default_factory=dict)
    asking: Future | None = None
    dispatch: Dispatch | None = None
    begun: dict[int, Sample] = field(default_factory=dict)  # tokens of requests that are not whole

    def __post_init__(self):
        self.everything = [request for share in self.shares for request in share]

    def wanted(self) -> int:
        """How many prompts must still become whole."""
        prompts = {request.prompt.id for request in self.everything}
        open_ = {request.prompt.id for number, request in enumerate(self.everything) if number not in self.found}
        return min(self.enough or len(prompts), len(prompts)) - len(prompts - open_)


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
        self.vocabulary = _vocabulary(model_folder)
        self.transport = build_transport(config, model_folder)
        self.version = -1
        self.weights: Weights | None = None
        self.times = SyncTimes()
        self.sent_again = self.continued = 0
        self.left: dict[tuple[str, int], tuple[Sample, bool]] = {}  # of prompts that come again; whether it is whole
        self.router = Router(config.router, config.sync_deadline_s) if config.router else None
        self.under_way: SglangJob | None = None
        self.thread = ThreadPoolExecutor(1, "sglang requests")
        self.fleet: Fleet | None = None
        if dist.get_rank() == 0:
            self.fleet = Fleet(config, model_folder, dtype, Path(config.log_folder))
        dist.barrier()

    def update_weights(self, weights: Weights) -> None:
        """See `Engine.update_weights`. UserError if no server can be had."""
        self._settle()
        self.weights = weights
        self._sync()

    def _sync(self) -> None:
        if self.fleet:
            self.fleet.wake("weights")
        self.version = self.weights.version
        self.times.timed(self.weights, self.config, self.transport, self.fleet)
        if self.fleet:
            self.fleet.wake("kv_cache", "cuda_graph")
            self.fleet.resting = []
            if self.router:
                self.router.admit(self.fleet.serving)

    def _lose(self, server: Server, reason: str) -> None:
        if self.router:
            self.router.remove(server)
        self.fleet.lose(server, reason)

    # --- generation: rank 0 asks the servers, in a thread; only `begin` and `finish` have collectives --------------

    def begin(self, requests: list[Request], sampling: Sampling, enough: int | None = None) -> SglangJob:
        """See `Engine.begin`. UserError, naming it, for a token outside the vocabulary: it would kill a server."""
        self._check(requests)
        shares: list[list[Request]] = [[] for _ in range(dist.get_world_size())]
        dist.gather_object(requests, shares if self.fleet else None)
        job = SglangJob(requests, sampling, shares, self.version, enough)
        if self.fleet:
            self._settle()
            if enough is not None:
                self._take_up(job)
            job.asking = self.thread.submit(self._ask, job)
            self.under_way = job
        return job

    def finish(self, job: SglangJob) -> list[Sample | None]:
        """See `Engine.finish`."""
        while not self._is_done(job):
            self._sync()  # every server was lost; those that came back have no weights
            if self.fleet:
                job.version = self.version
                job.asking = self.thread.submit(self._ask, job)
        answers = None
        if self.fleet:
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
                self.continued += 1
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
        return from_rank_0(self.fleet is None or job.wanted() <= 0)

    def _settle(self) -> None:
        """Waits until the servers have nothing under way."""
        if self.under_way is not None and self.under_way.asking is not None:
            wait([self.under_way.asking])
            self.under_way = None

    def _ask(self, job: SglangJob) -> None:
        """Adds to the job's samples what the serving servers answer."""
        missing = [number for number in range(len(job.everything)) if number not in job.found]
        if job.wanted() > 0 and self.fleet.serving:
            job.dispatch = Dispatch(
                self.config,
                self.fleet.serving,
                [job.everything[number] for number in missing],
                job.sampling,
                self.stop,
                job.version,
                self.decode,
                self._lose,
                job.wanted(),
                self.router,
                {place: job.begun[number] for place, number in enumerate(missing) if number in job.begun},
            )
            job.found.update({missing[number]: sample for number, sample in job.dispatch.run().items()})
            job.begun = {missing[number]: sample for number, sample in job.dispatch.begun.items()}
            self.sent_again += job.dispatch.again

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
        if self.under_way is not None and self.under_way.dispatch is not None:
            self.under_way.dispatch.cancel()
        self.thread.shutdown(cancel_futures=True)
        if self.fleet:
            self.fleet.close()


def _name(request: Request) -> tuple[str, int]:
    return request.prompt.id, request.index


def _vocabulary(model_folder: str) -> int:
    from gcpo_mcore.actor.architecture import read_architecture

    return read_architecture(model_folder).vocabulary

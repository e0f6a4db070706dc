"""Rank 0's side of the SGLang engine: has the servers asked for what the jobs of all ranks lack, in threads."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Leftovers, Request
from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.dispatch import Dispatch
from gcpo_mcore.rollout.sglang.fleet import Fleet
from gcpo_mcore.rollout.sglang.job import Work
from gcpo_mcore.rollout.sglang.keys import others_key
from gcpo_mcore.rollout.sglang.replies import Form
from gcpo_mcore.rollout.sglang.router import Router
from gcpo_mcore.rollout.sglang.server import Server, ServerLost
from gcpo_mcore.samples import Sample

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asking:
    """A dispatch that runs, in a thread, for the requests `numbers` of a job."""

    numbers: list[int]
    dispatch: Dispatch
    run: Future[None]


class Coordinator:
    """Nothing here is a collective. `form` says what is asked of a server, with the weights of then."""

    def __init__(self, config: SglangConfig, fleet: Fleet, form: Callable[[Sampling], Form]):
        self.config, self.fleet, self.form = config, fleet, form
        self.router = Router(config.router, config.sync_deadline_s, key=others_key(config)) if config.router else None
        self.under_way: list[Work] = []  # begun and not finished
        self.asking: dict[Work, Asking] = {}  # of those under way; one that failed stays until `is_answered` says so
        self.leftovers: Leftovers = {}  # with rollout.partial, of prompts that come again
        self.taken_over: Leftovers = {}  # of the job that comes next, in a former process
        self.sent_again = self.continued = 0
        self._threads = ThreadPoolExecutor(config.max_staleness + 2, "sglang requests")  # the steps', an evaluation's
        self._lock = threading.Lock()

    def begin(self, shares: Sequence[Sequence[Request]], sampling: Sampling, enough: int | None) -> Work:
        """Takes a job of all ranks, and has the servers start on it."""
        work = Work(shares, sampling, enough)
        work.begin_with(self.taken_over)
        self.taken_over = {}
        if enough is not None:
            self.continued += work.begin_with(self.leftovers)
            self.leftovers = {}
        self.under_way.append(work)
        self._ask(work)
        return work

    def sampled(self, work: Work) -> Leftovers:
        """What there is of a job under way. With rollout.partial it pauses for that: also the tokens that servers are
        at."""
        if self.config.partial and work in self.asking:
            self.pause()
            self.resume()
        if asking := self.asking.get(work):
            ledger = asking.dispatch.ledger
            return work.sampled(asking.numbers, ledger.samples.copy(), ledger.begun.copy())
        return work.sampled([], {}, {})

    def is_answered(self, work: Work) -> bool:
        """Whether there is all that is wanted, once the servers are at an end with it: False if all of them were lost
        before. UserError if a request failed too often."""
        if work in self.asking:
            self.asking[work].run.result()
            self._collect(work)
        return not work.prompts_wanted()

    def finish(self, work: Work) -> list[list[Sample | None]]:
        """For each rank the answers to its requests; what is not used is kept with rollout.partial."""
        self.under_way.remove(work)
        if work.enough is not None:
            dropped = work.drop_surplus()
            if self.config.partial:
                self.leftovers |= dropped
        return work.answers()

    def pause(self) -> None:
        """Returns when the servers have nothing under way, and memory for new weights."""
        for asking in self.asking.values():
            asking.dispatch.pause()
        wait([asking.run for asking in self.asking.values()])
        for work, asking in list(self.asking.items()):
            if asking.run.exception() is None:  # else `is_answered` raises it
                self._collect(work)
        self.fleet.settle()
        self.fleet.wake("weights")

    def resume(self) -> None:
        """Goes on with all jobs under way, with the servers that have the new weights."""
        self.fleet.wake("kv_cache", "cuda_graph")
        if self.router:
            self.router.admit(self.fleet.serving)
        for work in self.under_way:
            if work not in self.asking:
                self._ask(work)

    def _ask(self, work: Work) -> None:
        """Has the serving servers asked for what the job lacks."""
        wanted = work.prompts_wanted()
        if not wanted:
            return
        numbers = work.missing()
        begun = {place: work.begun[number] for place, number in enumerate(numbers) if number in work.begun}
        self.continued += len(begun)
        dispatch = Dispatch(
            self.config,
            self.fleet.serving,
            [work.requests[number] for number in numbers],
            self.form(work.sampling),
            self._lose,
            wanted,
            self.router,
            begun,
        )
        self.asking[work] = Asking(numbers, dispatch, self._threads.submit(dispatch.run))

    def _collect(self, work: Work) -> None:
        """Gives the job what its dispatch has, which is at its end."""
        asking = self.asking.pop(work)
        ledger = asking.dispatch.ledger
        work.add(asking.numbers, ledger.samples, ledger.begun)
        self.sent_again += ledger.sent_again

    def _lose(self, server: Server, reason: str) -> None:
        """Called by the jobs' threads, more than one of which may see it."""
        with self._lock:
            if server not in self.fleet.serving:
                return
            self.fleet.lose(server, reason)
            if self.router:
                try:
                    self.router.remove(server)
                except ServerLost as failure:
                    log.warning("rollout: the router was not told that %s is lost: %s", server, failure)

    def metrics(self) -> dict[str, float]:
        """Servers lost and started anew, requests sent again, responses that went on; since the last call."""
        found = {"rollout/sent_again": float(self.sent_again), "rollout/continued": float(self.continued)}
        self.sent_again = self.continued = 0
        return self.fleet.metrics() | found

    def close(self) -> None:
        """Drops what is under way and ends the run's own servers."""
        for asking in self.asking.values():
            asking.dispatch.cancel()
        self._threads.shutdown(cancel_futures=True)
        self.fleet.close()

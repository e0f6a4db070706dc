"""One server's part in a dispatch: keeps as many requests under way on it as it takes."""

import asyncio
import itertools
import time
from collections.abc import Callable

import aiohttp

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.ledger import RequestLedger
from gcpo_mcore.rollout.sglang.replies import Form
from gcpo_mcore.rollout.sglang.server import Server, ServerLost
from gcpo_mcore.samples import Sample

FAILURES_IN_A_ROW = 3  # of a server that answers but not as it should, before it is given up
ABORT_EVERY_S = 1.0
_LOOPS = itertools.count()


class ServerLoop:
    """Asks `server`, a server or the router in front of several.

    holders   the servers that may have its requests: itself or, of a router, those behind it
    wake_all  called when something has changed that other loops may wait for
    give_up   called with a server that failed too often, and why
    """

    def __init__(
        self,
        server: Server,
        holders: list[Server],
        config: SglangConfig,
        form: Form,
        ledger: RequestLedger,
        wake_all: Callable[[], None],
        give_up: Callable[[Server, str], None],
    ):
        self.server, self.holders, self.config, self.form, self.ledger = server, list(holders), config, form, ledger
        self.wake_all, self.give_up = wake_all, give_up
        self._running: dict[asyncio.Task[Sample], int] = {}  # the number of the request that each asks
        self._changed = asyncio.Event()
        self._loop = next(_LOOPS)
        self._is_stopped = self._is_ended = self._is_to_call_off = False

    # --- what others tell it -----------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something has changed."""
        self._changed.set()

    def stop(self) -> None:
        """It is to end, with what is under way unanswered."""
        self._is_stopped = True

    def end(self) -> None:
        """It is to end, and its server with what is under way: that would go on, for whoever comes next to meet."""
        self._is_ended = True

    def lose(self, server: Server) -> None:
        """`server` was given up: it answers nothing that it still has."""
        if server not in self.holders:
            return
        self.holders.remove(server)
        if self.holders:  # which requests the lost one had is not known: all are sent again
            self._is_to_call_off = True
        else:
            self.ledger.lose(self.server.url)
            self.stop()

    # --- the loop ----------------------------------------------------------------------------------------------

    async def run(self, http: aiohttp.ClientSession) -> None:
        """Returns when enough is answered by anyone, the server is lost, or there is a pause. UserError for a request
        that failed too often."""
        try:
            while not (self._is_stopped or self._is_ended or self.ledger.is_done or self._rests()):
                self._changed.clear()
                if self._is_to_call_off:
                    await self._call_off(http)
                self._ask_more(http)
                await self._until_something_happens()
                for task in [task for task in self._running if task.done()]:
                    self._settle(task)
            if not self._is_stopped:
                await self._call_off(http)
        finally:
            await self._drop()

    def _rests(self) -> bool:
        """Whether a pause ends the loop: it is not to wait for what is under way, or there is nothing."""
        return self.ledger.is_paused and (self.config.partial or not self._running)

    def _keeps_parts(self) -> bool:
        """Whether what is under way is to be ended now, and its tokens kept."""
        return self.config.partial and self.ledger.is_ending

    def _ask_more(self, http: aiohttp.ClientSession) -> None:
        before = len(self._running)
        while (number := self.ledger.hand_out(self.server.url)) is not None:
            self._running[asyncio.create_task(self._ask(http, number))] = number
        if len(self._running) > before and self.ledger.has_waiting(self.server.url):
            self.wake_all()  # the others may help now

    async def _until_something_happens(self) -> None:
        changed = asyncio.create_task(self._changed.wait())
        await asyncio.wait([*self._running, changed], return_when=asyncio.FIRST_COMPLETED)
        changed.cancel()

    def _settle(self, task: asyncio.Task[Sample]) -> None:
        """Enters a reply in the ledger, or that there was none."""
        number = self._running.pop(task)
        error = task.exception()
        if error is None:
            self._answer(number, task.result())
        elif isinstance(error, ServerLost):
            self._fail(number, error)
        else:
            raise error

    def _answer(self, number: int, sample: Sample) -> None:
        self.ledger.answer(self.server.url, number, sample)
        if self.ledger.is_done:
            self.wake_all()

    def _fail(self, number: int, error: ServerLost) -> None:
        self.ledger.fail(self.server.url, number)
        if self.ledger.tries(number) >= self.config.attempts:
            raise UserError(
                f"phase sample: {self.ledger.tries(number)} tries for prompt "
                f"{self.ledger.requests[number].prompt.id} failed, the last: {error} (rollout.attempts)"
            )
        self.wake_all()
        if self.ledger.failures_in_a_row(self.server.url) >= FAILURES_IN_A_ROW:
            self.give_up(self.server, str(error))

    async def _call_off(self, http: aiohttp.ClientSession) -> None:
        """Ends what is under way, here and on the servers. What was whole by then is taken if it is wanted still, and
        with rollout.partial what they have of the rest."""
        self._is_to_call_off = False
        try:
            await self._abort(http)
            if self._keeps_parts() or not self.ledger.is_ending:
                for task in [task for task in self._running if task.done() and task.exception() is None]:
                    self._answer(self._running.pop(task), task.result())
        finally:
            await self._drop()

    async def _abort(self, http: aiohttp.ClientSession) -> None:
        """Has the servers end what is under way, and waits for it: one that only hears no more from us would go on,
        and die of what comes next. Told again and again: a server knows of no request that has not reached it yet."""
        until = time.monotonic() + self.config.health_deadline_s
        while (open_ := [task for task in self._running if not task.done()]) and time.monotonic() < until:
            names = [self._name(self._running[task]) for task in open_]
            await asyncio.gather(*(server.abort(http, name) for server in self.holders for name in names))
            await asyncio.wait(open_, timeout=ABORT_EVERY_S)

    async def _drop(self) -> None:
        """Waits for nothing of what is under way."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running.clear()
        self.ledger.call_off(self.server.url)
        self.wake_all()

    # --- one request -------------------------------------------------------------------------------------------

    async def _ask(self, http: aiohttp.ClientSession, number: int) -> Sample:
        """The whole response. ServerLost if the reply is none; what it has of it is kept where parts are."""
        request, begun = self.ledger.requests[number], self.ledger.begun.get(number)
        asked = self.form.payload(request, self._name(number), begun)
        reply = await self.server.generate(http, asked, self.config.request_deadline_s)
        made, is_whole = self.form.sample(reply, request, begun)
        if is_whole:
            return made
        if made.tokens and self._keeps_parts():
            self.ledger.begun[number] = made
        raise ServerLost(f"a reply of {made.tokens} tokens that was called off", self.server)

    def _name(self, number: int) -> str:
        """The id of the request in its latest try."""
        seed = self.ledger.requests[number].seed % 2**32
        # To end one is to end all whose names begin with its name: none does, with the dot. The loop's own number: what
        # a pause ends is asked for again with the same weights.
        return f"{self.form.version}_{self._loop}_{number}_{self.ledger.tries(number)}_{seed}."

"""Requests -> samples over several servers that may fail: every request is answered exactly once.

backlog.py says which request goes to which server. What a lost server had under way is sent again elsewhere; an answer
counts only once. Several of these may run side by side, each in a thread of its own.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping

import aiohttp

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.rollout.engine import Request
from gcpo_mcore.rollout.sglang.backlog import Backlog
from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.replies import Form
from gcpo_mcore.rollout.sglang.router import Router
from gcpo_mcore.rollout.sglang.server import Server, ServerLost
from gcpo_mcore.samples import Sample

FAILURES_IN_A_ROW = 3  # of a server that answers but not as it should, before it is given up


class Dispatch:
    """One call's requests. `lose(server, reason)` is told of every server that is given up."""

    def __init__(
        self,
        config: SglangConfig,
        servers: list[Server],
        requests: list[Request],
        form: Form,
        lose: Callable[[Server, str], None],
        enough: int | None = None,
        router: Router | None = None,
        begun: Mapping[int, Sample] | None = None,
    ):
        self.config, self.requests, self.form, self.lose = config, requests, form, lose
        # Behind a router, which chooses the server itself, only the router is asked.
        self.router = router
        self.servers = list(servers)
        self.asked: list[Server | Router] = [router] if router else list(servers)
        self.backlog = Backlog(requests, [server.url for server in self.asked])
        self.samples: dict[int, Sample] = {}
        self.begun = dict(begun or {})  # request -> the tokens that it has already
        self.open = Counter(request.prompt.id for request in requests)  # prompt -> requests without an answer
        self.wanted = enough or len(self.open)
        self.tries: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()  # of a server, in a row
        self.names: dict[int, str] = {}  # request -> its id in the last try
        self.again = 0
        self.is_paused = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.bells = {server.url: asyncio.Event() for server in self.asked}  # of a server's loop: something has changed
        self.running: dict[str, dict[asyncio.Task, int]] = {server.url: {} for server in self.asked}  # under way
        self.slots = config.requests_per_server * (len(servers) if router else 1)

    def run(self) -> dict[int, Sample]:
        """The samples by number of the request: all, or those of `enough` prompts and some more. Fewer if no server
        is left, or if it was paused."""
        asyncio.run(self._run())
        return self.samples

    def pause(self) -> None:
        """Lets `run`, in another thread, end soon: when the servers have answered what they are at or, with
        rollout.partial, with the parts that they have of it in `begun`."""
        self.is_paused = True
        self._wake()

    def cancel(self) -> None:
        """Lets `run`, in another thread, end at once with what it has."""
        self.servers.clear()
        self._wake()

    def _wake(self) -> None:
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # it is at its end already
                self.loop.call_soon_threadsafe(self._ring)

    async def _run(self) -> None:
        self.loop = asyncio.get_running_loop()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as http:
            loops = [asyncio.create_task(self._serve(http, server)) for server in self.asked]
            watchers = [asyncio.create_task(self._watch(http, server)) for server in self.servers]
            try:
                await asyncio.gather(*loops)
            finally:
                for task in [*loops, *watchers]:
                    task.cancel()
                await asyncio.gather(*loops, *watchers, return_exceptions=True)

    @property
    def is_done(self) -> bool:
        """Whether as many prompts as are wanted have all their samples."""
        return self.wanted <= 0

    @property
    def takes_parts(self) -> bool:
        """Whether what is under way is to be ended now, and its tokens kept."""
        return self.config.partial and (self.is_done or self.is_paused)

    # --- one server --------------------------------------------------------------------------------------------

    async def _serve(self, http: aiohttp.ClientSession, server: Server) -> None:
        """Keeps `slots` requests under way on the server until all are answered anywhere, it is lost, or there is a
        pause."""
        running, bell = self.running[server.url], self.bells[server.url]
        known = len(self.servers)
        try:
            while not self.is_done and self._is_used(server) and not self._rests(running):
                bell.clear()
                if server is self.router and len(self.servers) < known:
                    # Which of its requests the lost server had is not known: all are sent again.
                    known = len(self.servers)
                    await self._call_off(running)
                before = len(running)
                while not self.is_paused and len(running) < self.slots and (number := self._next(server)) is not None:
                    running[asyncio.create_task(self._ask(http, server, number))] = number
                if len(running) > before and self.backlog.has_for(server.url):
                    self._ring(but=server)  # the others may help now
                wake = asyncio.create_task(bell.wait())
                await asyncio.wait([*running, wake], return_when=asyncio.FIRST_COMPLETED)
                wake.cancel()
                for task in [t for t in running if t.done()]:
                    self._take(server, running.pop(task), task)
            if self.takes_parts:
                await self._collect_parts(http, running)
        finally:
            await self._call_off(running)

    async def _collect_parts(self, http: aiohttp.ClientSession, running: dict[asyncio.Task, int]) -> None:
        """Ends what is under way on the servers; what they have of it goes to `begun`, what was whole is kept."""
        names = [self.names[number] for number in running.values()]
        await asyncio.gather(*(server.abort(http, name) for server in self.servers for name in names))
        if running:
            await asyncio.wait(running, timeout=self.config.health_deadline_s)
        for task in [t for t in running if t.done() and t.exception() is None]:
            self._keep(running.pop(task), task.result())

    async def _call_off(self, running: dict[asyncio.Task, int]) -> None:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._put_back(list(running.values()))
        running.clear()

    def _rests(self, running: dict[asyncio.Task, int]) -> bool:
        """Whether a pause ends the server's loop: it is not to answer what is under way, or there is nothing."""
        return self.is_paused and (self.config.partial or not running)

    def _is_used(self, server: Server) -> bool:
        return (server is self.router and bool(self.servers)) or server in self.servers

    def _next(self, server: Server | Router) -> int | None:
        serving = [one.url for one in ([self.router] if self.router else self.servers)]
        full = [url for url, running in self.running.items() if len(running) >= self.slots]
        return self.backlog.next(server.url, serving, full)

    def _put_back(self, numbers: list[int]) -> None:
        """Requests without an answer wait again, before all others."""
        left = [number for number in numbers if number not in self.samples]
        self.again += 0 if self.is_done or self.is_paused else len(left)
        self.backlog.put_back(left)
        self._ring()

    def _ring(self, but: Server | None = None) -> None:
        for url, bell in self.bells.items():
            if but is None or url != but.url:
                bell.set()

    async def _ask(self, http: aiohttp.ClientSession, server: Server, number: int) -> Sample:
        request = self.requests[number]
        self.tries[number] += 1
        name = f"{self.form.version}_{number}_{self.tries[number]}_{request.seed % 2**32}"
        begun = self.begun.get(number)
        asked = self.form.payload(request, name, begun)
        self.names[number] = name
        reply = await server.generate(http, asked, self.config.request_deadline_s)
        made, is_whole = self.form.sample(reply, request, begun)
        if not is_whole and made.response_ids and self.takes_parts:
            self.begun[number] = made
        if not is_whole:
            raise ServerLost(f"a reply of {len(made.response_ids)} tokens that was called off", server)
        return made

    def _take(self, server: Server, number: int, task: asyncio.Task) -> None:
        error = task.exception()
        if error is None:
            self.failures[server.url] = 0
            self._keep(number, task.result())
            return
        if not isinstance(error, ServerLost):
            raise error
        self.failures[server.url] += 1
        self.backlog.failed(number, server.url)
        if self.tries[number] >= self.config.attempts:
            raise UserError(
                f"phase sample: {self.tries[number]} tries for prompt {self.requests[number].prompt.id} failed, "
                f"the last: {error} (rollout.attempts)"
            )
        self._put_back([number])
        if server is not self.router and self.failures[server.url] >= FAILURES_IN_A_ROW:
            self._drop(server, str(error))

    def _keep(self, number: int, sample: Sample) -> None:
        if number in self.samples:
            return
        self.samples[number] = sample
        prompt = self.requests[number].prompt.id
        self.open[prompt] -= 1
        if not self.open[prompt]:
            self.wanted -= 1
            if self.is_done:
                self._ring()

    # --- health ------------------------------------------------------------------------------------------------

    async def _watch(self, http: aiohttp.ClientSession, server: Server) -> None:
        """Gives the server up when it does not answer within the deadline."""
        while server in self.servers:
            await asyncio.sleep(self.config.health_every_s)
            if not await server.answers(http, self.config.health_deadline_s):
                self._drop(server, f"no answer to its health check within {self.config.health_deadline_s:g} s")

    def _drop(self, server: Server, reason: str) -> None:
        if server in self.servers:
            self.servers.remove(server)
            self.lose(server, reason)
            self._ring()

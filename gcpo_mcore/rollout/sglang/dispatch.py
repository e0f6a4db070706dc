"""Requests -> samples over several servers that may fail: every request is answered exactly once.

ledger.py says what is to be asked of whom, server_loop.py asks it. What a lost server had under way is sent again
elsewhere. Several of these may run side by side, each in a thread of its own.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

import aiohttp

from gcpo_mcore.rollout.engine import Request
from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.ledger import RequestLedger
from gcpo_mcore.rollout.sglang.replies import Form
from gcpo_mcore.rollout.sglang.router import Router
from gcpo_mcore.rollout.sglang.server import Server
from gcpo_mcore.rollout.sglang.server_loop import ServerLoop
from gcpo_mcore.samples import Sample

MISSED_CHECKS = 3


class Dispatch:
    """One call's requests, of which all of `prompts_wanted` prompts need an answer; `ledger` has the answers.

    Behind a router, which chooses the server itself, only the router is asked. `lose(server, reason)` is told of every
    server that is given up; `begun` are the tokens that requests have already.
    """

    def __init__(
        self,
        config: SglangConfig,
        servers: Sequence[Server],
        requests: Sequence[Request],
        form: Form,
        lose: Callable[[Server, str], None],
        prompts_wanted: int,
        router: Router | None = None,
        begun: Mapping[int, Sample] | None = None,
    ):
        self.config, self.lose = config, lose
        self.servers = list(servers)  # those that are not given up
        holders: dict[Server, list[Server]] = {router: self.servers} if router else {one: [one] for one in servers}
        slots = config.requests_per_server * (len(servers) if router else 1)
        self.ledger = RequestLedger(requests, [server.url for server in holders], slots, prompts_wanted, begun)
        self._loops = [
            ServerLoop(server, behind, config, form, self.ledger, self._wake_all, self._give_up)
            for server, behind in holders.items()
        ]
        self._event_loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        """Returns when `ledger` has what is wanted; with less if no server is left, or if it was paused."""
        asyncio.run(self._run())

    def pause(self) -> None:
        """Lets `run`, in another thread, end soon: when the servers have answered what they are at or, with
        rollout.partial, with the parts that they have of it in the ledger's `begun`."""
        self.ledger.pause()
        self._wake_from_outside()

    def cancel(self) -> None:
        """Lets `run`, in another thread, end with what it has, when the servers have ended what they are at."""
        self.servers.clear()  # none of them is given up from now on
        for loop in self._loops:
            loop.end()
        self._wake_from_outside()

    async def _run(self) -> None:
        self._event_loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            loops = [asyncio.create_task(loop.run(http)) for loop in self._loops]
            watchers = [asyncio.create_task(self._watch(http, server)) for server in self.servers]
            try:
                await asyncio.gather(*loops)
            finally:
                for task in [*loops, *watchers]:
                    task.cancel()
                await asyncio.gather(*loops, *watchers, return_exceptions=True)

    async def _watch(self, http: aiohttp.ClientSession, server: Server) -> None:
        """Gives the server up when it does not answer its health check within the deadline, several times in a row: on
        a GPU the first passes of a kind may compile kernels for longer."""
        missed = 0
        while server in self.servers:
            await asyncio.sleep(self.config.health_every_s)
            missed = 0 if await server.answers(http, self.config.health_deadline_s) else missed + 1
            if missed == MISSED_CHECKS:
                reason = (
                    f"no answer to {missed} health checks in a row, within {self.config.health_deadline_s:g} s each"
                )
                self._give_up(server, reason)

    def _give_up(self, server: Server, reason: str) -> None:
        """Drops a server, once; the router is none."""
        if server not in self.servers:
            return
        self.servers.remove(server)
        for loop in self._loops:
            loop.lose(server)
        self._wake_all()
        self.lose(server, reason)

    def _wake_all(self) -> None:
        for loop in self._loops:
            loop.wake()

    def _wake_from_outside(self) -> None:
        if self._event_loop is not None:
            with contextlib.suppress(RuntimeError):  # it is at its end already
                self._event_loop.call_soon_threadsafe(self._wake_all)

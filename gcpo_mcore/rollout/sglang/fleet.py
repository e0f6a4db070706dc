"""The servers of a run: which of them can be used, and the care of those that the run started itself."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from gcpo_mcore.base import platform
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.keys import others_key
from gcpo_mcore.rollout.sglang.pairs import check_pair
from gcpo_mcore.rollout.sglang.process import POLL_S, ServerProcess, free_bytes
from gcpo_mcore.rollout.sglang.server import Server, ServerLost
from gcpo_mcore.rollout.sglang.starter import Starter

log = logging.getLogger(__name__)


class Fleet:
    """Rank 0's view. A server is `serving` from a sync until it is lost; one that comes (back) waits for a sync.

    Another's server that was lost is looked at again before each sync; one of the run's own is started anew, and
    another's where there is a command for it, up to `restarts` times. Those that the run's other nodes keep alive
    (`kept`: address and first rank) are servers elsewhere. `free` has every rank's free bytes of its GPU, `key` is that
    of the servers that the run starts, here and there.
    """

    def __init__(
        self,
        config: SglangConfig,
        model_folder: str,
        dtype: str,
        logs: Path,
        kept: Sequence[tuple[str, int]] = (),
        free: Sequence[int | None] = (),
        key: str | None = None,
    ):
        self.key, others = key, others_key(config)
        self.config, self.model_folder, self.dtype, self.logs, self.free = config, model_folder, dtype, logs, free
        self.processes: list[ServerProcess] = []
        self.restarts_left: list[int] = []
        self.kept = [Server(url, config.sync_deadline_s, first_rank, key) for url, first_rank in kept]
        self.others = [Server(url, config.sync_deadline_s, key=others) for url in config.servers] + self.kept
        self.starter = Starter(config.start_command, config.restarts, logs / "start_command.log")
        self.serving: list[Server] = []
        self.lost_count = self.restart_count = 0
        try:
            for number in range(config.start_servers):
                self.processes.append(self._start(number))
                self.restarts_left.append(config.restarts)
            for process in self.processes:
                process.wait()
        except BaseException:
            self.close()
            raise

    def _start(self, number: int) -> ServerProcess:
        self.logs.mkdir(parents=True, exist_ok=True)
        output = self.logs / f"sglang_{number}.log"
        free = free_bytes(self.free, number * self.config.tensor_parallel, self.config.tensor_parallel)
        return ServerProcess(self.config, self.model_folder, self.dtype, number, output, free_bytes=free, key=self.key)

    def lose(self, server: Server, reason: str) -> None:
        """Gives up a server until the next sync; one of the run's own is ended and started anew."""
        if server in self.serving:
            self.serving.remove(server)
        self.lost_count += 1
        server.forget()
        log.warning("rollout: %s is lost: %s", server, reason)
        for number, process in enumerate(self.processes):
            if process.server is server:
                self._restart(number)
        if server in self.others and self.starter.start(server):
            self.restart_count += 1

    def _restart(self, number: int) -> None:
        self.processes[number].end()
        if self.restarts_left[number]:
            self.restarts_left[number] -= 1
            self.restart_count += 1
            self.processes[number] = self._start(number)

    def ready(self) -> list[Server]:
        """Every server that can take weights now. Waits for a starting one only if there is no other.

        UserError if there is none.
        """
        for number, process in enumerate(self.processes):
            if not process.is_alive and self.restarts_left[number]:  # died while nobody asked it anything
                self.lose(process.server, process.last_words())
        found = self._ready_now()
        for number, process in enumerate(self.processes):
            if not found and process.is_alive:
                process.wait()
                found = [self.processes[number].server]
        if not found:
            found = self._await_others()
        if not found:
            raise UserError(
                "rollout: no SGLang server is left"
                + ("" if self.processes else f" of {', '.join(map(str, self.others))}")
                + (f"; rollout.restarts={self.config.restarts} are used up, see {self.logs}" if self.processes else "")
            )
        for server in found:
            info = server.info()
            check_pair(server, self.config.transport, torch.__version__, platform.nccl())
            if self.config.verify_sync and not info.can_sum_weights:
                raise UserError(
                    f"rollout.verify_sync: {server} is SGLang {info.release} on a CPU, which cannot sum its weights "
                    "(0.5.23 can)"
                )
        return found

    def _await_others(self) -> list[Server]:
        """The first of the servers elsewhere that somebody has started again, if one comes in time."""
        deadline = time.monotonic() + self.config.start_deadline_s
        while time.monotonic() < deadline and (self.kept or any(map(self.starter.was_asked_for, self.others))):
            if found := [s for s in self.others if s.is_up(self.config.health_deadline_s)]:
                return found
            time.sleep(POLL_S)
        return []

    def _ready_now(self) -> list[Server]:
        candidates = [p.server for p in self.processes if p.is_alive] + self.others
        return [s for s in candidates if s in self.serving or s.is_up(self.config.health_deadline_s)]

    def settle(self) -> None:
        """Returns when no serving server has anything under way; one that does not come to an end is lost."""
        for server in list(self.serving):
            self._or_lose(server, server.settle)

    def rest(self) -> None:
        """Takes weights and KV cache of all servers off their GPUs, once those that are starting have started."""
        self._release()
        while any(process.is_alive and not process.server.released for process in self.processes):
            self._release()  # one that was lost on the way has been started again
        self.serving = []

    def _release(self) -> None:
        for number in range(len(self.processes)):
            self._await_start(number)
        for server in self._ready_now():
            self._or_lose(server, server.release)

    def _await_start(self, number: int) -> None:
        """Returns when that server is not starting: it is up, or there are no restarts left."""
        while (process := self.processes[number]).is_alive and not process.server.released:
            if process.server in self.serving:
                return
            try:
                return process.wait()
            except UserError as error:
                self.lose(process.server, str(error))

    def wake(self, *tags: str) -> None:
        """Brings back the memory that `tags` name to the servers that rest; of weights, without their contents."""
        for server in self.servers():
            self._or_lose(server, server.resume, *tags)

    def servers(self) -> list[Server]:
        """All there are, whether they can be used or not."""
        return [process.server for process in self.processes] + self.others

    def _or_lose(self, server: Server, call: Callable[..., None], *arguments: str) -> None:
        try:
            call(*arguments)
        except ServerLost as error:
            self.lose(server, str(error))

    def metrics(self) -> dict[str, float]:
        """Servers lost and started anew since the last call."""
        found = {"rollout/servers_lost": float(self.lost_count), "rollout/servers_started": float(self.restart_count)}
        self.lost_count = self.restart_count = 0
        return found

    def close(self) -> None:
        """Ends every process of its own."""
        for process in self.processes:
            process.end()
        self.starter.close()

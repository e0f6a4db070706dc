"""Servers that a run starts on its other nodes: kept alive there, known to rank 0 by their addresses only.

Rank 0 sees them as servers elsewhere: it gives one up, and takes it back with all weights at a sync after its return.
"""

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist

from gcpo_mcore.base.http_json import own_address
from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.process import ServerProcess, free_bytes

log = logging.getLogger(__name__)


def leads_another_node() -> bool:
    """Whether this rank is the first of a node, and not the run's first."""
    return dist.get_rank() > 0 and os.environ.get("LOCAL_RANK") == "0"


class NodeServers:
    """`rollout.start_servers` of them. One that ends, or does not answer, is started again at its address, up to
    `rollout.restarts` times each; not while they rest: a new one would take the GPU from the actor. (With
    rollout.memory_saver, where a health check would kill a resting one, only one that ends.)
    """

    def __init__(
        self,
        config: SglangConfig,
        model_folder: str,
        dtype: str,
        logs: Path,
        free: Sequence[int | None] = (),
        key: str | None = None,
    ):
        self.key = key
        self.config, self.model_folder, self.dtype, self.logs, self.free = config, model_folder, dtype, logs, free
        self.host = own_address(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        self.processes = [self._start(number) for number in range(config.start_servers)]
        self.restarts_left = [config.restarts] * config.start_servers
        self.is_closing = threading.Event()
        self.is_resting = False
        self._starting: set[int] = set()
        self._lock = threading.Lock()  # a server is looked at, or all come to rest
        self.thread = threading.Thread(target=self._keep, name="servers of this node", daemon=True)

    def addresses(self) -> list[tuple[str, int]]:
        """Of each server its address, and the rank on its first GPU."""
        return [(p.server.url, p.first_rank) for p in self.processes]

    def wait(self) -> None:
        """Returns when all can generate. UserError if one never will."""
        for process in self.processes:
            process.wait()
        self.thread.start()

    def _start(self, number: int, port: int | None = None) -> ServerProcess:
        self.logs.mkdir(parents=True, exist_ok=True)
        output = self.logs / f"sglang_node{os.environ['GROUP_RANK']}_{number}.log"
        first_rank = dist.get_rank() + number * self.config.tensor_parallel
        return ServerProcess(
            self.config,
            self.model_folder,
            self.dtype,
            number,
            output,
            self.host,
            port=port,
            first_rank=first_rank,
            free_bytes=free_bytes(self.free, first_rank, self.config.tensor_parallel),
            key=self.key,
        )

    def rest(self) -> None:
        """Returns when none is starting, and from then on starts none until `is_resting` is false again."""
        with self._lock:
            self.is_resting = True
            for number in sorted(self._starting):
                self.processes[number].wait()
            self._starting.clear()

    def _keep(self) -> None:
        while not self.is_closing.wait(self.config.health_every_s):
            self.look_after_all()

    def look_after_all(self) -> None:
        """Starts those again that have ended, or do not answer, unless all of them rest."""
        for number in range(len(self.processes)):
            with self._lock:
                if not self.is_resting:
                    self._look_after(number)

    def _look_after(self, number: int) -> None:
        process = self.processes[number]
        is_up = self.config.rests or process.server.is_up(self.config.health_deadline_s)
        if process.is_alive and (is_up or (number in self._starting and not process.problem())):
            self._starting -= {number} if is_up and not self.config.rests else set()
        elif self.restarts_left[number] and not self.is_closing.is_set():
            self.restarts_left[number] -= 1
            log.warning("rollout: %s is started anew", process.server)
            process.end()
            self.processes[number] = self._start(number, process.port)
            self._starting.add(number)

    def close(self) -> None:
        """Ends every server of this node."""
        self.is_closing.set()
        if self.thread.is_alive():
            self.thread.join()
        for process in self.processes:
            process.end()

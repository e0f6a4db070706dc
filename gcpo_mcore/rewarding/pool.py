"""Grading processes that can be killed: no answer, however hostile, costs more than its deadline.

Each worker has a socket of its own and shares nothing (no lock that a killed worker could hold). It gets several
answers at a time and replies to each at once, with its index, so the deadline is per answer and the one at fault is
known; the others of its batch go to another worker.

An answer's deadline is CPU time, which the kernel counts in the worker (worker.py), so that a busy machine fails
nothing. Behind it stands a far one in wall time, for what waits for ever: of the time in which this process was there
to look, for one that is stopped and goes on must not find everybody late.

Workers are plain subprocesses, not multiprocessing children: those would import the user's
__main__ (a trainer, with torch), and need a guard in it.
"""

import contextlib
import logging
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.parent import kill_group
from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.channel import Garbled, PoolEnd
from gcpo_mcore.rewarding.config import RewardConfig
from gcpo_mcore.rewarding.confinement import environment
from gcpo_mcore.rewarding.orders import OUT_OF_MEMORY, OUT_OF_TIME, Orders

log = logging.getLogger(__name__)

STARTUP_DEADLINE_S = 600.0  # imports, on a busy machine and file system
KILL_WAIT_S = 5.0
LONGEST_WAIT_S = 1.0  # for a worker's word, before it is waited for again
STALL_S = 1.0  # longer after the end of a wait, this process was not there
MAX_BATCH = 32  # enough that the socket costs nothing, few enough that workers end together
_NO_NETWORK = re.compile(r"Network is unreachable|Cannot assign requested address|name resolution|not known", re.I)


@dataclass(frozen=True)
class Outcome:
    """`scores` by part, or why there are none: failed is 'timeout', 'crash' or 'error', problem says more."""

    scores: dict[str, float] | None = None
    failed: str = ""
    problem: str = ""


@dataclass
class _Worker:
    process: subprocess.Popen
    channel: PoolEnd
    deadline: float  # of the pool's clock, by which its next message is due; meaningless while idle
    ready: bool = False
    in_flight: deque[int] = field(default_factory=deque)  # the first is the one it is at

    @property
    def idle(self) -> bool:
        return self.ready and not self.in_flight


class AttendedClock:
    """Seconds in which this process was there to look at its workers."""

    def __init__(self, read: Callable[[], float] = time.monotonic):
        self._read = read
        self.now_s, self._read_at_s = 0.0, read()

    def pass_on(self, expected_s: float = 0.0) -> None:
        """Adds the time since the last call, of which `expected_s` was a wait, and of what is beyond it STALL_S at
        most."""
        before, self._read_at_s = self._read_at_s, self._read()
        self.now_s += min(self._read_at_s - before, expected_s + STALL_S)


class WorkerPool:
    """`with WorkerPool(config) as pool: outcomes = pool.run(answers)`.

    Enter it in a thread that lives as long as the pool: Linux ends a worker with the thread that
    started it. Not to be used by two threads at once. UserError if the workers cannot start.
    """

    def __init__(self, config: RewardConfig):
        self.config = config
        self.has_network = config.network == "allow" or config.needs_network
        if config.network == "deny" and config.needs_network:
            raise UserError(f"reward.network=deny: {', '.join(config.parts_with_network)} cannot grade without it")
        self._workers: list[_Worker] = []
        self._clock = AttendedClock()

    def __enter__(self) -> "WorkerPool":
        try:
            self._workers.extend(self._start() for _ in range(self.config.workers))
            while not all(w.ready for w in self._workers):
                self._step([], deque(), {})
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Kills every worker. Waits for none longer than the kernel takes to end it."""
        while self._workers:
            _kill(self._workers.pop())

    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [w.process.pid for w in self._workers]

    def run(self, answers: list[Answer]) -> list[Outcome]:
        """One outcome per answer, in their order."""
        self._clock.pass_on()
        for worker in list(self._workers):
            if worker.in_flight or (worker.ready and not self._is_quiet(worker)):
                self._replace(worker)
        outcomes: dict[int, Outcome] = {}  # by the place of the answer
        waiting = deque(range(len(answers)))
        while waiting or any(w.in_flight for w in self._workers):
            self._step(answers, waiting, outcomes)
        return [outcomes[place] for place in range(len(answers))]

    @staticmethod
    def _is_quiet(worker: _Worker) -> bool:
        """Whether an idle worker is there and says nothing; it was interrupted in an earlier call, or died, if not."""
        try:
            return worker.channel.receive() == []
        except (EOFError, Garbled):
            return False

    def _step(self, answers: list[Answer], waiting: deque[int], outcomes: dict[int, Outcome]) -> None:
        """Feeds the idle workers, waits for one message or deadline, and books what came."""
        batch = max(1, min(MAX_BATCH, len(answers) // (4 * len(self._workers))))
        for worker in self._workers:
            if worker.idle and waiting:
                worker.in_flight.extend(waiting.popleft() for _ in range(min(batch, len(waiting))))
                worker.deadline = self._clock.now_s + self.config.wall_deadline_s
                worker.channel.put([(place, answers[place]) for place in worker.in_flight])
        busy = [w for w in self._workers if not w.idle]
        if not busy:
            return
        spoke = self._wait(busy)
        for worker in busy:
            try:
                for message in worker.channel.receive() if worker in spoke else ():
                    self._book(worker, message, outcomes)
            except EOFError:
                self._lose(worker, waiting, outcomes, "crash")
            except Garbled as problem:
                self._lose(worker, waiting, outcomes, "crash", f"the worker sent {problem}")
            else:
                if not worker.idle and worker not in spoke and self._clock.now_s > worker.deadline:
                    self._lose(worker, waiting, outcomes, "timeout")

    def _wait(self, busy: list[_Worker]) -> list[_Worker]:
        """Sends what the workers take, and returns those that have something to say, if one has before a deadline."""
        poll, by_descriptor = select.poll(), {w.channel.socket.fileno(): w for w in busy}
        for descriptor, worker in by_descriptor.items():
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if worker.channel.has_output else 0))
        patience_s = max(0.0, min(LONGEST_WAIT_S, min(w.deadline for w in busy) - self._clock.now_s))
        spoke = []
        for descriptor, events in poll.poll(1000 * patience_s):
            worker = by_descriptor[descriptor]
            if events & select.POLLOUT:
                with contextlib.suppress(OSError):  # gone; what it said last comes first
                    worker.channel.send()
            if events & ~select.POLLOUT:
                spoke.append(worker)
        self._clock.pass_on(patience_s)
        return spoke

    def _book(self, worker: _Worker, message: dict[str, Any], outcomes: dict[int, Outcome]) -> None:
        """One message of a worker: that it is ready, or a grade. Garbled for any other."""
        if "ready" in message:
            if not message["ready"]:
                raise UserError(f"a grading worker cannot start: {message['problem']}")
            worker.ready = True
            if kept := message["kept_network"]:
                log.debug("grading: rewards have the network, which cannot be taken away here: %s", kept)
            return
        if not worker.in_flight or message.get("index") != worker.in_flight[0]:
            raise Garbled(f"a grade of answer {message.get('index')}, which it was not at")
        failed = "error" if "problem" in message else ""
        outcomes[worker.in_flight.popleft()] = Outcome(message.get("scores"), failed, self._explained(message))
        worker.deadline = self._clock.now_s + self.config.wall_deadline_s

    def _explained(self, message: dict[str, Any]) -> str:
        problem = message.get("problem", "")
        if not self.has_network and _NO_NETWORK.search(problem):
            return f"{problem} (rewards have no network, unless they say needs_network or reward.network=allow)"
        return problem

    def _lose(
        self, worker: _Worker, waiting: deque[int], outcomes: dict[int, Outcome], failed: str, problem: str = ""
    ) -> None:
        """A worker that is dead or late: the answer it was at has failed, the rest go back, another starts."""
        code = _kill(worker)
        if not worker.ready:
            why = f"no word within {STARTUP_DEADLINE_S:g} s" if failed == "timeout" else _ended(code)
            raise UserError(f"a grading worker cannot start: {why} (memory_limit_mib {self.config.memory_limit_mib})")
        if worker.in_flight and not worker.channel.has_output:  # else it has not begun: nobody's fault
            if failed == "timeout":
                problem = f"no grade within {self.config.wall_deadline_s:g} s (reward.wall_deadline_s)"
            elif code == -OUT_OF_TIME:
                failed, problem = "timeout", f"over {self.config.deadline_s:g} s of CPU time (reward.deadline_s)"
            elif code == OUT_OF_MEMORY:
                problem = f"out of memory (reward.memory_limit_mib={self.config.memory_limit_mib})"
            outcomes[worker.in_flight.popleft()] = Outcome(None, failed, problem or _ended(code))
        waiting.extendleft(reversed(worker.in_flight))
        worker.in_flight.clear()
        self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        _kill(worker)
        self._workers[self._workers.index(worker)] = self._start()

    def _start(self) -> _Worker:
        """Starts a worker; it says when it is ready."""
        ours, theirs = socket.socketpair()
        paths = [os.path.abspath(p) for p in sys.path]  # '' is the current folder; rewards may live anywhere on it
        kept = environment(os.environ, self.config.environment, self.has_network)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "gcpo_mcore.rewarding.worker", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a reward prints is a message, not the trainer's output
                # Its address space is limited: glibc would reserve some of it for every thread of a reward.
                env=kept | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
                process_group=0,  # out of reach of ctrl-C; and killed with whatever a reward may have started
            )
        channel = PoolEnd(ours)
        leaves = "must leave" if self.config.network == "deny" else "leave"
        channel.put(Orders(channel.word, self.config, "keep" if self.has_network else leaves))
        return _Worker(process, channel, deadline=self._clock.now_s + STARTUP_DEADLINE_S)


def _ended(code: int | None) -> str:
    """Words for a worker's exit code."""
    if code is not None and code < 0:
        return f"the worker was ended by {signal.Signals(-code).name}"
    return f"the worker ended with code {code}"


def _kill(worker: _Worker) -> int | None:
    """Ends a worker and its process group; its exit code (-9 if it was still alive), None if it cannot be known."""
    worker.channel.close()
    kill_group(worker.process, KILL_WAIT_S)
    return worker.process.returncode

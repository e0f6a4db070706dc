"""Grading processes that can be killed: no answer, however hostile, costs more than its deadline.

Each worker has a pipe of its own and shares nothing (no lock that a killed worker could hold). It
gets several answers at a time and replies to each at once, so the deadline is per answer and the
one at fault is known; the others of its batch go to another worker.

Workers are plain subprocesses, not multiprocessing children: those would import the user's
__main__ (a trainer, with torch), and need a guard in it.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.config import RewardConfig

STARTUP_DEADLINE_S = 120.0  # imports, on a busy file system
KILL_WAIT_S = 5.0
MAX_BATCH = 32  # enough that the pipe costs nothing, few enough that workers end together


@dataclass(frozen=True)
class Outcome:
    """`scores` by part, or why there are none: failed is 'timeout', 'crash' or 'error', problem says more."""

    scores: dict[str, float] | None = None
    failed: str = ""
    problem: str = ""


@dataclass
class _Worker:
    process: subprocess.Popen
    pipe: Connection
    deadline: float  # time.monotonic() by which its next message is due; meaningless while idle
    ready: bool = False
    in_flight: deque[int] = field(default_factory=deque)  # the first is the one it is at

    @property
    def idle(self) -> bool:
        return self.ready and not self.in_flight


class WorkerPool:
    """`with WorkerPool(config) as pool: outcomes = pool.run(answers)`.

    Enter it in a thread that lives as long as the pool: Linux ends a worker with the thread that
    started it. Not to be used by two threads at once. UserError if the workers cannot start.
    """

    def __init__(self, config: RewardConfig):
        self.config = config
        self._workers: list[_Worker] = []

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
        for worker in list(self._workers):
            # Interrupted in an earlier call, or dead since (an idle worker has nothing to say but 'end of file').
            if worker.in_flight or (worker.ready and worker.pipe.poll(0)):
                self._replace(worker)
        outcomes: dict[int, Outcome] = {}  # by the place of the answer
        waiting = deque(range(len(answers)))
        while waiting or any(w.in_flight for w in self._workers):
            self._step(answers, waiting, outcomes)
        return [outcomes[place] for place in range(len(answers))]

    def _step(self, answers: list[Answer], waiting: deque[int], outcomes: dict[int, Outcome]) -> None:
        """Feeds the idle workers, waits for one message or deadline, and books what came."""
        batch = max(1, min(MAX_BATCH, len(answers) // (4 * len(self._workers))))
        for worker in list(self._workers):
            if worker.idle and waiting:
                worker.in_flight.extend(waiting.popleft() for _ in range(min(batch, len(waiting))))
                worker.deadline = time.monotonic() + self.config.deadline_s
                try:
                    worker.pipe.send([answers[i] for i in worker.in_flight])
                except OSError:  # it died while idle: nobody's fault, all of them go back
                    self._give_back(worker, waiting)
                    self._replace(worker)
        busy = [w for w in self._workers if not w.idle]
        if not busy:
            return
        patience = max(0.0, min(w.deadline for w in busy) - time.monotonic())
        spoke = set(wait([w.pipe for w in busy], timeout=patience))
        now = time.monotonic()
        for worker in busy:
            if worker.pipe in spoke:
                try:
                    message = json.loads(worker.pipe.recv_bytes())
                except (EOFError, OSError):
                    self._lose(worker, waiting, outcomes, "crash")
                else:
                    self._book(worker, message, outcomes)
            elif now > worker.deadline:
                self._lose(worker, waiting, outcomes, "timeout")

    def _book(self, worker: _Worker, message: dict, outcomes: dict[int, Outcome]) -> None:
        """One message of a worker: that it is ready, or a grade."""
        if "ready" in message:
            if not message["ready"]:
                raise UserError(f"a grading worker cannot start: {message['problem']}")
            worker.ready = True
            return
        failed = "error" if "problem" in message else ""
        outcomes[worker.in_flight.popleft()] = Outcome(message.get("scores"), failed, message.get("problem", ""))
        worker.deadline = time.monotonic() + self.config.deadline_s

    def _lose(self, worker: _Worker, waiting: deque[int], outcomes: dict[int, Outcome], failed: str) -> None:
        """A worker that is dead or late: the answer it was at has failed, the rest go back, another starts."""
        code = _kill(worker)
        if not worker.ready:
            why = f"no word within {STARTUP_DEADLINE_S:g} s" if failed == "timeout" else f"it ended with code {code}"
            raise UserError(f"a grading worker cannot start: {why} (memory_limit_mib {self.config.memory_limit_mib})")
        ended = f"over {self.config.deadline_s:g} s" if failed == "timeout" else f"the worker ended with code {code}"
        outcomes[worker.in_flight.popleft()] = Outcome(None, failed, ended)
        self._give_back(worker, waiting)
        self._replace(worker)

    @staticmethod
    def _give_back(worker: _Worker, waiting: deque[int]) -> None:
        waiting.extendleft(reversed(worker.in_flight))
        worker.in_flight.clear()

    def _replace(self, worker: _Worker) -> None:
        _kill(worker)
        self._workers[self._workers.index(worker)] = self._start()

    def _start(self) -> _Worker:
        """Starts a worker; it says when it is ready."""
        ours, theirs = socket.socketpair()
        paths = [os.path.abspath(p) for p in sys.path]  # '' is the current folder; rewards may live anywhere on it
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "gcpo_mcore.rewarding.worker", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a reward prints is a message, not the trainer's output
                # Its address space is limited: glibc would reserve some of it for every thread of a reward.
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
                process_group=0,  # out of reach of ctrl-C; and killed with whatever a reward may have started
            )
        pipe = Connection(ours.detach())
        # If it died at once, the end of the pipe says so later.
        with contextlib.suppress(OSError):
            pipe.send(self.config)
        return _Worker(process, pipe, deadline=time.monotonic() + STARTUP_DEADLINE_S)


def _kill(worker: _Worker) -> int | None:
    """Ends a worker and its process group; its exit code (-9 if it was still alive), None if it cannot be known."""
    worker.pipe.close()
    if worker.process.returncode is None:  # not reaped yet, so the id is still its own
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.process.wait(timeout=KILL_WAIT_S)
    return worker.process.returncode

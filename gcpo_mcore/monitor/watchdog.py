"""Deadlines of phases: past one, the process says where it hangs, and ends.

    phases = Phases(rank, deadline_s=1800)
    with phases.phase("generate"):
        ...
    phases.drain()   # {'generate': 12.3}, and starts anew for the next step

Past the deadline: one line on stderr with the rank, the phase and the seconds waited, the stacks of
all threads, the same in the rank's log, a last line with the rank that did not come if there is one
(monitor/heartbeat.py), and exit code `EXIT_CODE`, without cleaning up (whatever hangs would hang the
clean-up). Grading workers and other children bound to the process end with it.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from gcpo_mcore.base.errors import tell_torchrun
from gcpo_mcore.monitor import heartbeat
from gcpo_mcore.monitor.run_log import TIME, open_logs

if TYPE_CHECKING:  # this module is imported without torch
    from gcpo_mcore.monitor.ledger import Ledger

Mark = Callable[[str], AbstractContextManager[object]]

EXIT_CODE = 3
# A call that holds the interpreter lock stops Python threads, this module's timer among them. faulthandler's own
# C thread then ends the process (exit code 1, the stacks only), so much later that the timer goes first if it can.
BACKSTOP_S = 30.0
LOG_S = 5.0  # for the last words in the log: a file system may be what hangs
STDERR = 2  # the real one: sys.stderr may be somebody's buffer

_backstops: list[float] = []  # time.monotonic() at which each phase now open would be ended by faulthandler
_lock = threading.Lock()


@contextmanager
def phase(name: str, deadline_s: float, rank: int) -> Iterator[None]:
    """Gives the body `deadline_s` seconds. Phases may nest; each keeps its own deadline."""
    started = time.monotonic()
    heartbeat.enter(name)
    sys.audit("gcpo_mcore.phase", name, rank)  # for who watches from outside (tests/faults)
    timer = threading.Timer(deadline_s, _end, (name, started, rank))
    timer.daemon = True
    timer.name = f"watchdog {name}"
    timer.start()
    backstop = started + deadline_s + BACKSTOP_S
    _arm(add=backstop)
    try:
        yield
    finally:
        timer.cancel()
        _arm(remove=backstop)


class Phases:
    """The phases of a rank, with a common deadline, and the seconds each took in this step.

    `memory`, if there is one, is told of every phase (monitor/ledger.py).
    """

    def __init__(self, rank: int, deadline_s: float, memory: "Ledger | None" = None):
        self.rank, self.memory = rank, memory
        self.deadline_s = deadline_s
        self.seconds: dict[str, float] = {}
        self._mark: Mark = nullcontext

    @contextmanager
    def marked(self, mark: Mark) -> Iterator[None]:
        """The scope in which the body of every phase is inside of `mark(its name)`: a profiler's, for one."""
        before, self._mark = self._mark, mark
        try:
            yield
        finally:
            self._mark = before

    @contextmanager
    def phase(self, name: str, deadline_s: float | None = None) -> Iterator[None]:
        """Does as `phase`, with this rank and, unless another is given, the common deadline. Times of a name add up."""
        started = time.monotonic()
        try:
            with (
                phase(name, self.deadline_s if deadline_s is None else deadline_s, self.rank),
                self.memory.phase(name) if self.memory else nullcontext(),
                self._mark(name),
            ):
                yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started

    def drain(self) -> dict[str, float]:
        """The seconds per phase since the last call."""
        drained, self.seconds = self.seconds, {}
        return drained


def _end(name: str, started: float, rank: int) -> None:
    waited = time.monotonic() - started
    line = f"rank {rank}: phase '{name}' did not end within {waited:.1f} s; stacks follow"
    with suppress(OSError):
        os.write(STDERR, f"{line}\n".encode())
        faulthandler.dump_traceback(file=STDERR, all_threads=True)
    _in_logs(line, has_stacks=True)
    here = heartbeat.present()
    if missing := here and here.missing():
        line = f"rank {rank}: phase '{name}' waited {waited:.1f} s for others: {missing}"
        with suppress(OSError):
            os.write(STDERR, f"{line}\n".encode())
        _in_logs(line, has_stacks=False)
    with suppress(OSError):
        tell_torchrun(line.removesuffix("; stacks follow"))
    os._exit(EXIT_CODE)


def _in_logs(line: str, has_stacks: bool) -> None:
    writer = threading.Thread(target=_write_into_logs, args=(line, has_stacks), daemon=True)
    writer.start()
    writer.join(LOG_S)


def _write_into_logs(line: str, has_stacks: bool) -> None:
    """Writes past the log's own handler, whose lock the thread that hangs may hold."""
    for path in open_logs():
        with suppress(OSError), open(path, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime(TIME)} CRITICAL {line}\n")
            file.flush()
            if has_stacks:
                faulthandler.dump_traceback(file=file, all_threads=True)


def _arm(add: float | None = None, remove: float | None = None) -> None:
    """Sets faulthandler's one timer to the earliest backstop."""
    with _lock:
        if add is not None:
            _backstops.append(add)
        if remove is not None:
            _backstops.remove(remove)
        if _backstops:
            left = max(0.1, min(_backstops) - time.monotonic())
            faulthandler.dump_traceback_later(left, exit=True, file=STDERR)
        else:
            faulthandler.cancel_dump_traceback_later()

"""What a signal asks of a process: to end soon and in good order, or at once.

with stoppable(deadline_s=300) as stop:
    ...                       # SIGTERM, SIGINT: `Stopped` is raised here
    stop.wait_for_step_ends() # from now on it is only noted: the loop looks at `stop.number`
    ...

Past the deadline, and at a second signal, the process ends where it is. So it does if the signal is torchrun's for the
others of a rank that is gone.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from gcpo_mcore.base.errors import Stopped, tell_torchrun

EXIT_CODE = 75  # sysexits.h, EX_TEMPFAIL: the same command goes on
SIGNALS = (signal.SIGTERM, signal.SIGINT)
REPEAT_S = 1.0  # what a whole process group gets, torchrun passes on: twice the same
STDERR = 2

log = logging.getLogger(__name__)


def exit_code() -> int:
    """EXIT_CODE; 0 where torchrun would start the run again (--max-restarts): it takes any other code for a failure."""
    restarts, done = (int(os.environ.get(f"TORCHELASTIC_{name}", "0")) for name in ("MAX_RESTARTS", "RESTART_COUNT"))
    return 0 if restarts > done else EXIT_CODE


class Stop:
    """The signals that a process got. number: of the first one, 0 before."""

    def __init__(self, deadline_s: float, lost: Callable[[], str | None]):
        self.deadline_s, self._lost = deadline_s, lost
        self.number = 0
        self._is_waiting = self._is_over = self._has_raised = False
        self._since = 0.0
        self._lock = threading.Lock()

    def wait_for_step_ends(self) -> None:
        """From now on a signal is only noted. Stopped, if one came before."""
        self._is_waiting = True
        if self.number:
            raise Stopped(f"{name(self.number)}: stopped before the first step")

    def done(self) -> None:
        """What the signal asked for is done; the process is on its way out, and another one changes nothing."""
        self._is_over = True

    def raise_at_once(self) -> None:
        """From now on a signal raises again. Stopped, if one came meanwhile."""
        self._is_waiting = False
        if self.number and not self._is_over:
            raise Stopped(f"{name(self.number)}: stopped behind the last step")

    def came(self, number: int) -> None:
        """A signal came; called in any thread but the main one."""
        with self._lock:
            is_first = not self.number
            if is_first:
                self.number, self._since = number, time.monotonic()
        if is_first:
            threading.Thread(target=self._watch, name="stop", daemon=True).start()
            if self._is_waiting and not self._is_over:
                level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.DEBUG
                log.log(level, "%s: the run stops at the end of this step; a second one ends it at once", name(number))
        elif not self._is_over and time.monotonic() - self._since > REPEAT_S:
            self._end(f"{name(number)}, the second signal: ended at once; the newest checkpoint stands", 128 + number)

    def in_main(self, number: int, _frame: FrameType | None) -> None:
        """The main thread's handler."""
        if not (self._is_waiting or self._is_over or self._has_raised):
            self._has_raised = True
            raise Stopped(f"{name(number)}: stopped while no step was under way")

    def lost_in(self, unraisable: "sys.UnraisableHookArgs") -> bool:
        """Whether what Python would print and forget is a `Stopped`: it was raised in a destructor. The number stays,
        and with it the next one of our own places to raise it."""
        if not isinstance(unraisable.exc_value, Stopped):
            return False
        self._has_raised = False
        return True

    def _watch(self) -> None:
        """Ends the process at the deadline, or if another rank's end is the reason for the signal."""
        if (lost := self._lost()) and not self._is_over:
            self._end(lost, 1)
        time.sleep(max(0.0, self._since + self.deadline_s - time.monotonic()))
        self._end(
            f"{name(self.number)}: what was under way did not end within {self.deadline_s:g} s "
            "(monitor.stop_deadline_s) and is given up; the newest checkpoint stands",
            exit_code(),
        )

    @staticmethod
    def _end(words: str, code: int) -> None:
        rank = os.environ.get("RANK", "0")
        say_last(f"{'' if rank == '0' else f'rank {rank}: '}{words}")
        os._exit(code)


def name(number: int) -> str:
    """'SIGTERM' for 15."""
    return signal.Signals(number).name


class _Present:
    stop: Stop | None = None
    has_spoken = False


def came() -> bool:
    """Whether a signal came, also to a process that is on its way out for another reason."""
    return _Present.stop is not None and _Present.stop.number != 0


def leave() -> None:
    """From here on no signal changes how the process ends: while the interpreter ends, Python sets its own handlers
    back, and torchrun sends SIGTERM to the slower ranks as soon as the first is gone."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def say_last(line: str) -> None:
    """Prints a process's last line on stderr, if that takes one, and tells it torchrun; only the first is one."""
    if _Present.has_spoken:
        return
    _Present.has_spoken = True
    with suppress(OSError):
        os.write(STDERR, f"{line}\n".encode())
    with suppress(OSError):
        tell_torchrun(line)


@contextmanager
def stoppable(deadline_s: float, lost: Callable[[], str | None]) -> Iterator[Stop]:
    """The scope, of the main thread, in which SIGTERM and SIGINT go to a `Stop`.

    An exception ends the process soon, which still has to say of what: from there on they change nothing (torchrun
    sends one to every rank when another has ended).

    lost: asked once, when the first came; words if another rank is gone, so that there is nothing to wait for.
    """
    stop = _Present.stop = Stop(deadline_s, lost)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python's own handlers run in the main thread, which may sit in a collective; a byte in the pipe is there at once.
    threading.Thread(target=_listen, args=(reading, stop), name="signals", daemon=True).start()
    before_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = [signal.signal(number, stop.in_main) for number in SIGNALS]
    print_unraisable = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: None if stop.lost_in(unraisable) else print_unraisable(unraisable)
    try:
        yield stop
    except BaseException:
        stop.done()
        raise
    sys.unraisablehook = print_unraisable
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)
    signal.set_wakeup_fd(before_fd)
    os.close(writing)


def _listen(reading: int, stop: Stop) -> None:
    while numbers := os.read(reading, 1):
        if numbers[0] in SIGNALS:
            stop.came(numbers[0])
    os.close(reading)

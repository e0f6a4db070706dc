"""Which of the ranks is missing: each tells the store in which they met, again and again, in which phase it is.

A rank that beats no more is stopped, or gone; one that beats and has entered fewer phases than another is where that
one waits for it. (This is imported without torch.)
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

BEAT_S = 2.0
ANSWER_S = 5.0  # within which the store answers, if its process does
_LEFT = "left"


class Store(Protocol):
    """What is used of torch.distributed.Store."""

    def set_timeout(self, timeout: timedelta, /) -> None: ...

    def set(self, key: str, value: str, /) -> None: ...

    def multi_get(self, keys: list[str], /) -> list[bytes]: ...


@dataclass(frozen=True)
class Beat:
    """What a rank told last: how many beats it has made, how many phases it has entered, the name of the last one."""

    number: int
    entered: int
    phase: str
    has_left: bool = False

    def __str__(self) -> str:
        return f"{self.number} {self.entered} {int(self.has_left)} {self.phase}"

    @classmethod
    def read(cls, told: bytes) -> "Beat":
        """The beat of these words."""
        number, entered, has_left, phase = told.decode().split(" ", 3)
        return cls(int(number), int(entered), phase, has_left == "1")


class Heartbeat:
    """Of rank `rank` of `world`, from now until `leave`."""

    def __init__(self, client: Callable[[], Store], rank: int, world: int):
        self.rank = rank
        self._keys = [f"gcpo_mcore/beat/{each}" for each in range(world)]
        self._beat, self._since = Beat(0, 0, "start"), time.monotonic()
        self._lock = threading.Lock()
        self._stores = [client(), client()]  # one is one thread's: to tell, and to ask
        for each in self._stores:
            each.set_timeout(timedelta(seconds=ANSWER_S))
        self._news, self._is_over = threading.Event(), False
        self._tell()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def waited(self) -> str:
        """Words for how long this rank is in the phase that it entered last."""
        return f"rank {self.rank}: phase '{self._beat.phase}' waited {time.monotonic() - self._since:.1f} s for others"

    def enter(self, phase: str) -> None:
        """This rank enters a phase; a beat says so."""
        with self._lock:
            self._beat = Beat(self._beat.number, self._beat.entered + 1, phase)
            self._since = time.monotonic()
        self._news.set()

    def leave(self) -> None:
        """The last beat: this rank ends, and says why itself."""
        self._is_over = True
        self._news.set()
        self._thread.join(2 * ANSWER_S)  # a thread inside of the store would abort the interpreter's end

    def silent(self) -> dict[int, Beat]:
        """The ranks that beat no more, with what they told last; takes two beats. RuntimeError without a store."""
        before = self.beats()
        time.sleep(2.5 * BEAT_S)
        now = self.beats()
        others = [rank for rank in range(len(now)) if rank != self.rank]
        return {rank: now[rank] for rank in others if now[rank] == before[rank]}

    def missing(self, is_late: bool = True) -> str | None:
        """Words for the ranks that did not come, of which others are in need; None if none is known. Takes two beats.

        Those that ended with words of their own are not among them. is_late: nor need they be gone; those are meant too
        that have entered fewer phases than this one.
        """
        try:
            found = {rank: beat for rank, beat in self.silent().items() if not beat.has_left}
            if found:
                return _words(found, "is stopped, or gone; last in")
            alive = {rank: beat for rank, beat in enumerate(self.beats()) if not beat.has_left}
        except RuntimeError:
            return self._no_store()
        own = self._beat.entered
        least = min((beat.entered for beat in alive.values()), default=own)
        behind = {rank: beat for rank, beat in alive.items() if beat.entered == least < own}
        return _words(behind, "is still in") if is_late and behind else None

    def gone(self) -> str | None:
        """Words for a rank that has ended, whatever of; None if there is none. Takes two beats."""
        try:
            found = self.silent()
        except RuntimeError:
            return self._no_store()
        return _words(found, "is stopped, or gone; last in") if found else None

    def _no_store(self) -> str | None:
        """Words for what it means that the store does not answer: it is in torchrun's process, or in rank 0's."""
        if self.rank == 0 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return None
        return "rank 0 is stopped, or gone: its store does not answer"

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._news.wait(BEAT_S)
            self._news.clear()
            is_last = self._is_over
            with suppress(RuntimeError):  # the store's own process is gone
                self._tell()

    def _tell(self) -> None:
        with self._lock:
            last = self._beat
            self._beat = Beat(last.number + 1, last.entered, last.phase, self._is_over)
            told = str(self._beat)
        self._stores[0].set(self._keys[self.rank], told)

    def beats(self) -> list[Beat]:
        """What each rank told last. RuntimeError without a store."""
        return [Beat.read(told) for told in self._stores[1].multi_get(self._keys)]


def _words(found: dict[int, Beat], how: str) -> str:
    rank, beat = next(iter(found.items()))
    more = f", and {len(found) - 1} more," if len(found) > 1 else ""
    return f"rank {rank}{more} {how} phase '{beat.phase}'"


class _Present:
    heartbeat: Heartbeat | None = None


def begin(client: Callable[[], Store], rank: int, world: int) -> None:
    """Begins to beat, where there are others to hear it; all of them have to. client: makes one of the common store."""
    _Present.heartbeat = Heartbeat(client, rank, world) if world > 1 else None


def end() -> None:
    """The last beat, of a rank whose end needs no explanation by others."""
    if _Present.heartbeat is not None:
        _Present.heartbeat.leave()


def enter(phase: str) -> None:
    """This process enters a phase."""
    if _Present.heartbeat is not None:
        _Present.heartbeat.enter(phase)


def gone() -> str | None:
    """Words for a rank that has ended; None if there is none. Takes two beats."""
    return _Present.heartbeat.gone() if _Present.heartbeat is not None else None


def present() -> Heartbeat | None:
    """This rank's heartbeat; None where it has no others."""
    return _Present.heartbeat

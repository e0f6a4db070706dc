"""What ranks that fail tell each other, through the store in which they met: it outlives the process groups.

A mistake of all ranks is told by rank 0 alone; one of another rank alone is told by that rank, at once, and whoever
only lost its connection to it waits for that. (This is imported without torch.)
"""

from datetime import timedelta
from typing import Protocol

_FAILED, _TOLD = "gcpo_mcore/failed/0", "gcpo_mcore/told"
LOST = "lost a peer"


class Store(Protocol):
    """What is used of torch.distributed.Store."""

    def set(self, key: str, value: str, /) -> None: ...

    def get(self, key: str, /) -> bytes: ...

    def wait(self, keys: list[str], timeout: timedelta, /) -> None: ...


class _Meeting:
    store: Store | None = None
    rank = 0


def keep_store(store: Store, rank: int) -> None:
    """Remembers where the ranks met; before the process groups end."""
    _Meeting.store, _Meeting.rank = store, rank


def announce(words: str) -> None:
    """Tells the others what this rank fails with, if it is rank 0."""
    if _Meeting.store is not None and _Meeting.rank == 0:
        _Meeting.store.set(_FAILED, words)


def heard_from_rank_0(words: str, wait_s: float) -> bool:
    """Whether rank 0 fails with the same words, or they are no ranks yet; waits so long for what it has to say."""
    if _Meeting.store is None:
        return True
    return _get(_FAILED, wait_s) == words


def told() -> None:
    """This rank's error is printed: the others may end."""
    if _Meeting.store is not None:
        _Meeting.store.set(_TOLD, "yes")


def wait_until_told(wait_s: float) -> bool:
    """Returns when the rank that failed has printed its error, or after so long; whether it has."""
    return _Meeting.store is not None and _get(_TOLD, wait_s) is not None


def _get(key: str, wait_s: float) -> str | None:
    store = _Meeting.store
    assert store is not None, "asked by a rank that met others"
    try:
        store.wait([key], timedelta(seconds=wait_s))
        return store.get(key).decode()
    except (RuntimeError, ValueError):  # too late, or the store's own process is gone
        return None

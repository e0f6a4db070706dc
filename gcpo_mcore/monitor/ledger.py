"""The memory ledger: the peak of every phase of a step, the largest over ranks.

ledger = Ledger()
with ledger.phase("score"):
    ...
ledger.drain()   # {'memory/score_peak_gib': 1.3}, and starts anew for the next step
"""

from collections.abc import Iterator
from contextlib import contextmanager

from gcpo_mcore.base import platform
from gcpo_mcore.base.collectives import from_every_rank


class Ledger:
    """Peaks of this rank by phase: memory allocated on the GPU, or resident on a CPU. Phases may nest."""

    def __init__(self):
        self.peaks: dict[str, float] = {}
        self._open: list[str] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The body's peak counts for `name`, and for the phases around it."""
        self._note()
        self._open.append(name)
        try:
            yield
        finally:
            self._note()
            self._open.pop()

    def drain(self) -> dict[str, float]:
        """The peaks since the last call, the largest over ranks, as 'memory/PHASE_peak_gib'. A collective."""
        everyone = from_every_rank(self.peaks)
        self.peaks = {}
        names = sorted({name for peaks in everyone for name in peaks})
        return {f"memory/{name}_peak_gib": max(peaks.get(name, 0.0) for peaks in everyone) for name in names}

    def _note(self) -> None:
        """Books the peak so far on the phases that are open, and forgets it."""
        for name in self._open:
            self.peaks[name] = max(self.peaks.get(name, 0.0), platform.phase_memory_gib())
        platform.reset_phase_memory()

"""Trackers: a run's numbers, histograms and some of its samples, told to other programs while it trains.

    class Mine(Tracker): ...                        # trackers/mine.py, decorated with @trackers.register
    tracking = Tracking(["mine"], run, done_steps=0)
    tracking.tell(Step(1, {"reward/mean": 0.5}, {"reward": [0.0, 1.0]}, []))
    tracking.close()

Each has a thread of its own, so that one that waits for a network holds nobody up, and one that fails is left out with
one warning: no tracker ends or delays a run.
"""

import atexit
import json
import logging
import queue
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gcpo_mcore.base.files import write_atomically
from gcpo_mcore.base.registry import trackers

log = logging.getLogger(__name__)

FOLDER = "trackers"
STEPS_WAITING = 200  # of a tracker that is slower than the run; what comes then is left out
CLOSE_S = 60.0  # for what is still to be told when a run ends
AT_EXIT_S = 10.0  # the same, for a run that ends by an error


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run.

    folder   the run folder
    config   the resolved configuration, plain
    offline  it is to ask no network: what it writes is below `own_folder`
    id       the run's name at the tracker: the same in a continuation
    is_continued  whether the tracker has had this id before
    """

    name: str
    project: str
    folder: Path
    config: Mapping[str, Any]
    offline: bool
    id: str = ""
    is_continued: bool = False

    @property
    def own_folder(self) -> Path:
        """Where trackers write what they keep on this machine."""
        return self.folder / FOLDER


@dataclass(frozen=True)
class Step:
    """What a step has to tell: metrics, the values that histograms are made of, and some samples as columns of text."""

    number: int
    metrics: Mapping[str, float]
    histograms: Mapping[str, Sequence[float]]
    samples: Sequence[Mapping[str, Any]]

    def table(self) -> dict[str, list[Any]]:
        """The samples as the names of columns and rows: what a table of wandb's or trackio's is made from."""
        columns = list(self.samples[0])
        return {"columns": columns, "data": [[sample[name] for name in columns] for sample in self.samples]}

    def texts(self) -> list[str]:
        """Each sample as lines of its names and values."""
        return ["\n".join(f"{name}: {value}" for name, value in sample.items()) for sample in self.samples]


class Tracker(ABC):
    """One program that is told of a run. Whatever it raises is caught, and it is not asked again.

    can_go_back  it can forget the steps after the one from which a run goes on. Others are not told a second time of
                 steps that they have.
    """

    can_go_back: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, run: TrackedRun, done_steps: int):
        """Opens the run, or goes on with it from `done_steps` (-1: from its start)."""

    @property
    def id(self) -> str | None:
        """The id that the tracker itself chose; None if it took that of the run."""
        return None

    @abstractmethod
    def tell(self, step: Step) -> None:
        """Takes what a step has to tell."""

    @abstractmethod
    def close(self) -> None:
        """Returns when everything told has been written."""


class Tracking:
    """All trackers of a run, by their names in the config."""

    def __init__(self, names: Sequence[str], run: TrackedRun, done_steps: int):
        self._all = [_Beside(name, run, done_steps) for name in names]
        atexit.register(self.close, AT_EXIT_S)  # of a run that ends by an error

    def tell(self, step: Step) -> None:
        """Hands on what a step has to tell, and returns at once."""
        for one in self._all:
            one.tell(step)

    def close(self, most_s: float | None = None) -> None:
        """Returns when everything is told, or so many seconds (CLOSE_S) have passed."""
        atexit.unregister(self.close)
        deadline = time.monotonic() + (CLOSE_S if most_s is None else most_s)
        for one in self._all:
            one.end()
        for one in self._all:
            one.wait(deadline - time.monotonic())


class _Beside:
    """A tracker in a thread of its own."""

    def __init__(self, name: str, run: TrackedRun, done_steps: int):
        self.name, self.done_steps = name, done_steps
        self._note = run.own_folder / f"{name}.json"
        self._waiting: queue.Queue[Step | None] = queue.Queue(STEPS_WAITING)
        self._is_lost = False
        self._thread = threading.Thread(target=self._run, args=(run,), name=f"tracker {name}", daemon=True)
        self._thread.start()

    def tell(self, step: Step) -> None:
        if self._is_lost:
            return
        try:
            self._waiting.put_nowait(step)
        except queue.Full:
            self._lose(f"it is {STEPS_WAITING} steps behind")

    def end(self) -> None:
        if not self._is_lost:
            try:
                self._waiting.put_nowait(None)
            except queue.Full:
                self._lose(f"it is {STEPS_WAITING} steps behind")

    def wait(self, seconds: float) -> None:
        if self._is_lost:
            return
        self._thread.join(max(seconds, 0.0))
        if self._thread.is_alive():
            self._lose(f"it did not finish within {seconds:.0f} s")

    def _lose(self, why: str) -> None:
        if not self._is_lost:
            self._is_lost = True
            log.warning("tracker %s is left out from here on: %s", self.name, why)

    def _run(self, run: TrackedRun) -> None:
        try:
            self._follow(run)
        except Exception as error:  # whatever a stranger's code raises
            self._lose(_words(error))

    def _follow(self, run: TrackedRun) -> None:
        known = json.loads(self._note.read_text()) if self._note.is_file() else None
        id_, told = (known["id"], known["step"]) if known else (uuid.uuid4().hex[:20], -1)
        tracked = TrackedRun(run.name, run.project, run.folder, run.config, run.offline, id_, known is not None)
        tracker: Tracker = trackers.get(self.name)(tracked, self.done_steps)
        id_ = tracker.id or id_
        while (step := self._waiting.get()) is not None:
            if self._is_lost:
                return
            if step.number > told or tracker.can_go_back:
                tracker.tell(step)
                told = step.number
                write_atomically(self._note, json.dumps({"id": id_, "step": told}))
        tracker.close()


def _words(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error} (pip install 'gcpo-mcore[{error.name}]')"
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]

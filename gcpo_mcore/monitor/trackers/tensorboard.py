"""Tensorboard events in the run folder's tb/."""

import threading

import numpy as np

from gcpo_mcore.base.registry import trackers
from gcpo_mcore.monitor.tracking import Step, TrackedRun, Tracker

FOLDER = "tb"


@trackers.register
class TensorBoard(Tracker):
    """Scalars, histograms, and samples as text. What a run takes again is hidden by a purge."""

    can_go_back = True

    def __init__(self, run: TrackedRun, done_steps: int):
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and not every run wants it

        threading.excepthook = _leave_to_writer
        folder = run.folder / FOLDER
        self._events = SummaryWriter(str(folder), purge_step=done_steps + 1 if folder.exists() else None)

    def tell(self, step: Step) -> None:
        """See Tracker."""
        for name, value in step.metrics.items():
            self._events.add_scalar(name, value, step.number)
        for name, values in step.histograms.items():
            self._events.add_histogram(f"histogram/{name}", np.asarray(values), step.number)
        if step.samples:
            text = "\n\n".join(map(_indented, step.texts()))
            self._events.add_text("samples", text, step.number)
        self._events.flush()

    def close(self) -> None:
        """See Tracker."""
        self._events.close()


def _indented(text: str) -> str:
    """By four, which is markdown's way to say that text is no markup."""
    return "\n".join(f"    {line}" for line in text.split("\n"))


def _leave_to_writer(args: threading.ExceptHookArgs) -> None:
    """Prints what a thread ends with, unless that is tensorboard's: its writer raises a full disk again."""
    if not (isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
        threading.__excepthook__(args)

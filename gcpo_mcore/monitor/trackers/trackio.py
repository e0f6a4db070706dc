"""Trackio, which keeps a run on this machine: `pip install 'gcpo-mcore[trackio]'`, then `trackio show`.

TRACKIO_DIR is where; a space of the hub is named by its own variable, TRACKIO_SPACE_ID, unless the run is offline.
"""

import os
from importlib import import_module

from gcpo_mcore.base.registry import trackers
from gcpo_mcore.monitor.tracking import Step, TrackedRun, Tracker


@trackers.register
class Trackio(Tracker):
    """Scalars, histograms, and samples as a table."""

    def __init__(self, run: TrackedRun, done_steps: int):
        trackio = import_module("trackio")  # not every run wants it

        self._trackio = trackio
        self._run = trackio.init(
            project=run.project,
            name=f"{run.name}-{run.id[:6]}",  # a run is found again by its name
            resume="allow",
            space_id=None if run.offline else os.environ.get("TRACKIO_SPACE_ID"),
            config=dict(run.config),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def tell(self, step: Step) -> None:
        """See Tracker."""
        told: dict[str, object] = dict(step.metrics)
        told |= {f"histogram/{name}": self._trackio.Histogram(list(v)) for name, v in step.histograms.items()}
        if step.samples:
            told["samples"] = self._trackio.Table(**step.table())
        self._run.log(told, step=step.number)

    def close(self) -> None:
        """See Tracker."""
        self._run.finish()

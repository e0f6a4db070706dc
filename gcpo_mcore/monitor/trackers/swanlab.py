"""SwanLab: `pip install 'gcpo-mcore[swanlab]'`, `swanlab login`. Offline: trackers/swanlab, for `swanlab sync`."""

import re
from importlib import import_module

from gcpo_mcore.base.registry import trackers
from gcpo_mcore.monitor.tracking import Step, TrackedRun, Tracker


@trackers.register
class SwanLab(Tracker):
    """Scalars, and samples as text."""

    def __init__(self, run: TrackedRun, done_steps: int):
        swanlab = import_module("swanlab")  # not every run wants it

        self._swanlab = swanlab
        self._run = swanlab.init(
            project=re.sub(r"[^0-9a-zA-Z_\-+.]", "_", run.project),  # it allows no other letters
            name=run.name,
            id=run.id,
            resume="allow",
            mode="offline" if run.offline else "online",
            log_dir=str(run.own_folder / "swanlab"),
            config=dict(run.config),
            settings=swanlab.Settings(interactive=False),  # it would ask the terminal for a key
        )

    def tell(self, step: Step) -> None:
        """See Tracker."""
        told: dict[str, object] = dict(step.metrics)
        if step.samples:
            told["samples"] = [self._swanlab.Text(text) for text in step.texts()]
        self._run.log(told, step=step.number)

    def close(self) -> None:
        """See Tracker."""
        self._run.finish()

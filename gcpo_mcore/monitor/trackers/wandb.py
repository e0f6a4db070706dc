"""Weights & Biases: `pip install 'gcpo-mcore[wandb]'`, `wandb login`. Offline: trackers/wandb, for `wandb sync`."""

from importlib import import_module

from gcpo_mcore.base.registry import trackers
from gcpo_mcore.monitor.tracking import Step, TrackedRun, Tracker


@trackers.register
class Wandb(Tracker):
    """Scalars, histograms, and samples as a table."""

    def __init__(self, run: TrackedRun, done_steps: int):
        wandb = import_module("wandb")  # not every run wants it

        if not run.offline and wandb.api.api_key is None:  # it would ask the terminal for one
            raise RuntimeError("not logged in (wandb login, WANDB_API_KEY, or monitor.trackers_offline=true)")
        run.own_folder.mkdir(parents=True, exist_ok=True)
        self._wandb = wandb
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=run.id,
            resume="allow",
            dir=str(run.own_folder),
            mode="offline" if run.offline else "online",
            config=dict(run.config),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def tell(self, step: Step) -> None:
        """See Tracker."""
        told: dict[str, object] = dict(step.metrics)
        told |= {f"histogram/{name}": self._wandb.Histogram(values) for name, values in step.histograms.items()}
        if step.samples:
            told["samples"] = self._wandb.Table(**step.table())
        self._run.log(told, step=step.number)

    def close(self) -> None:
        """See Tracker."""
        self._run.finish()

"""MLflow: `pip install 'gcpo-mcore[mlflow]'`, MLFLOW_TRACKING_URI. Offline: trackers/mlflow.db, for `mlflow ui`."""

import re
import time
from importlib import import_module

from gcpo_mcore.base.registry import trackers
from gcpo_mcore.monitor.tracking import Step, TrackedRun, Tracker


@trackers.register
class MLflow(Tracker):
    """Scalars, and samples as a text artifact. MLflow has no histograms, and allows no @ in names: avg_at_1."""

    def __init__(self, run: TrackedRun, done_steps: int):
        mlflow = import_module("mlflow")  # not every run wants it

        run.own_folder.mkdir(parents=True, exist_ok=True)
        own = run.own_folder.resolve()
        self._metric = import_module("mlflow.entities").Metric
        self._client = mlflow.MlflowClient(f"sqlite:///{own / 'mlflow.db'}" if run.offline else None)
        if run.is_continued:
            self._run_id = run.id
            self._client.update_run(run.id, status="RUNNING")
            return
        artifacts = (own / "mlflow_artifacts").as_uri() if run.offline else None
        found = self._client.get_experiment_by_name(run.project)
        experiment = found.experiment_id if found else self._client.create_experiment(run.project, artifacts)
        self._run_id = self._client.create_run(experiment, run_name=run.name).info.run_id
        for section, value in run.config.items():
            self._client.log_param(self._run_id, section, str(value)[:5000])

    @property
    def id(self) -> str:
        """See Tracker."""
        return self._run_id

    def tell(self, step: Step) -> None:
        """See Tracker."""
        now_ms = int(time.time() * 1000)
        metrics = [self._metric(_name(name), value, now_ms, step.number) for name, value in step.metrics.items()]
        self._client.log_batch(self._run_id, metrics=metrics)
        if step.samples:
            self._client.log_text(self._run_id, "\n\n".join(step.texts()), f"samples/step_{step.number:06d}.txt")

    def close(self) -> None:
        """See Tracker."""
        self._client.set_terminated(self._run_id)


def _name(name: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"))

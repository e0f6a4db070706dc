"""What a run tells: derived sizes, progress, metrics, rollout records. Rank 0 speaks, the others are silent."""

from gcpo_mcore import platform
from gcpo_mcore.batch import Batch
from gcpo_mcore.monitor.metrics import MetricsLog
from gcpo_mcore.monitor.progress import Progress
from gcpo_mcore.monitor.records import write_records
from gcpo_mcore.monitor.tables import print_sizes
from gcpo_mcore.plan import Plan
from gcpo_mcore.samples import Group

COUNTS = ("golden_injected", "golden_missing", "golden_rejected", "dropped_all_wrong", "dropped_all_right",
          "dropped_other", "kept")  # fmt: skip


class Report:
    """Collects the numbers of a step and writes them out."""

    def __init__(self, plan: Plan, enabled: bool):
        self.plan, self.enabled = plan, enabled
        self.settings = plan.config.monitor

    def start(self, done_steps: int) -> None:
        """Prepares the run folder and prints the table of sizes."""
        if not self.enabled:
            return
        folder = self.plan.folder
        folder.write_config(self.plan.resolved)
        folder.keep_model_files(self.plan.config.model.path)
        self.log = MetricsLog(folder.path, self.settings.tensorboard)
        self.log.truncate_after(done_steps if done_steps else -1)
        print_sizes(f"{folder.path.name}", self.plan.sizes())
        self.progress = Progress(self.plan.config.trainer.steps, done_steps, self.settings.progress)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Metrics that belong to no training step (the evaluation at the start)."""
        if self.enabled:
            self.log.write(step, metrics)

    def step(
        self,
        step: int,
        metrics: dict[str, float],
        groups: list[Group],
        batches: list[Batch],
        seconds: dict[str, float],
        wall_s: float,
    ) -> None:
        """One training step: metrics, records, progress. `seconds` by phase."""
        if not self.enabled:
            return
        trained = sum(float(b.mask.sum()) for b in batches)
        metrics = metrics | {f"time_s/{name}": s for name, s in seconds.items()}
        metrics |= {
            "time_s/step": wall_s,
            "perf/tokens_per_s": (metrics["rollout/tokens"] + trained) / wall_s,
            "perf/memory_peak_gib": platform.memory_gib(),
        }
        self.log.write(step, metrics)
        if self.settings.records:
            flat = [float(row[0]) for b in batches for row in b.advantage]
            advantages, place = {}, 0
            for g, group in enumerate(groups):
                for s in range(len(group.samples)):
                    advantages[g, s] = flat[place]
                    place += 1
            write_records(self.plan.folder.path, step, groups, advantages, self.settings.records_per_step)
        self.progress.update(
            step,
            reward=metrics["reward/mean"],
            all_wrong_fraction=metrics["groups/all_wrong_fraction"],
            golden_injections=int(metrics["groups/golden_injected"]),
            tokens_per_s=metrics["perf/tokens_per_s"],
        )

    def close(self) -> None:
        """Closes bar and event file."""
        if self.enabled:
            self.progress.close()
            self.log.close()

    @staticmethod
    def rollout_metrics(groups: list[Group]) -> dict[str, float]:
        """Sums over the sampled responses of `groups`, before any golden answer joins."""
        samples = [s for g in groups for s in g.samples]
        return {
            "groups": float(len(groups)),
            "samples": float(len(samples)),
            "reward": sum(s.reward for s in samples),
            "accurate": float(sum(s.is_accurate for s in samples)),
            "tokens": float(sum(len(s.response_ids) for s in samples)),
            "truncated": float(sum(s.truncated for s in samples)),
        }

    @staticmethod
    def means(totals: dict[str, float], rounds: int) -> dict[str, float]:
        """The sums of all rounds of a step as the metrics that are logged."""
        samples, groups = max(totals["samples"], 1.0), totals["groups"]
        return {
            "reward/mean": totals["reward"] / samples,
            "reward/accuracy": totals["accurate"] / samples,
            "rollout/tokens": totals["tokens"],
            "rollout/response_tokens_mean": totals["tokens"] / samples,
            "rollout/truncated_fraction": totals["truncated"] / samples,
            "rollout/rounds": float(rounds),
            "groups/all_wrong_fraction": totals["all_wrong"] / groups,
            "groups/all_right_fraction": totals["all_right"] / groups,
            **{f"groups/{name}": totals[name] for name in COUNTS},
            **{name: value for name, value in totals.items() if name.startswith("grading/")},
        }

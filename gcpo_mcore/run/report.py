"""What a run tells: derived sizes, progress, metrics, rollout records. Rank 0 speaks, the others are silent."""

from collections.abc import Mapping
from itertools import islice

from gcpo_mcore.base import platform
from gcpo_mcore.base.background import Background
from gcpo_mcore.base.collectives import to_rank_0
from gcpo_mcore.batch import Table, WeighedBatch
from gcpo_mcore.hf.flops import forward_flops, training_flops
from gcpo_mcore.monitor.metrics import MetricsLog
from gcpo_mcore.monitor.progress import Progress
from gcpo_mcore.monitor.records import record, write_records
from gcpo_mcore.monitor.run_log import RunLog
from gcpo_mcore.monitor.tables import print_sizes
from gcpo_mcore.run.collector import Collected
from gcpo_mcore.run.golden_check import GoldenCount
from gcpo_mcore.run.plan import Plan


class Report:
    """Collects the numbers of a step and writes them out."""

    def __init__(self, plan: Plan, run_log: RunLog, rank: int):
        self.plan, self.run_log, self.rank, self.enabled = plan, run_log, rank, rank == 0
        self._writing: Background | None = None
        self.settings = plan.config.monitor

    def start(self, done_steps: int, golden: Mapping[str, GoldenCount]) -> None:
        """Prepares the run folder and prints the table of sizes, and the counts of golden answers by source."""
        if not self.enabled:
            return
        folder = self.plan.folder
        folder.write_config(self.plan.resolved)
        folder.keep_model_files(self.plan.config.model.path)
        self.log = MetricsLog(folder.path, self.settings.tensorboard)
        self.log.truncate_after(done_steps if done_steps else -1)
        counts = {f"golden answers, {source}": count for source, count in golden.items()}
        print_sizes(f"{folder.path.name}", self.plan.sizes() | counts)
        for name, count in counts.items():
            self.run_log.line(f"{name}: {count}")
        self.progress = Progress(self.plan.config.trainer.steps, done_steps, self.settings.progress)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Metrics that belong to no training step (the evaluation at the start)."""
        if self.enabled:
            self.log.write(step, metrics)

    def step(
        self,
        step: int,
        metrics: dict[str, float],
        collected: Collected,
        batch: WeighedBatch | None,
        seconds: dict[str, float],
        wall_s: float,
    ) -> None:
        """One training step: metrics, records, progress. `seconds` by phase. A collective over all ranks."""
        if self.settings.records:
            self._record(step, collected, batch)
        if not self.enabled:
            return
        table = batch.table if batch else None
        trained = float(table.tokens[table.is_trained].sum()) if table else 0.0
        metrics = metrics | {f"time_s/{name}": s for name, s in seconds.items()}
        metrics |= self._speed(table, seconds)
        metrics |= {
            "time_s/step": wall_s,
            "perf/tokens_per_s": (metrics["rollout/tokens"] + trained) / wall_s,
            "perf/memory_peak_gib": platform.memory_gib(),
        }
        self.log.write(step, metrics)
        shown = {
            "reward": metrics["reward/mean"],
            "all_wrong_fraction": metrics["groups/all_wrong_fraction"],
            "golden_injections": int(metrics["groups/golden_injected"]),
            "tokens_per_s": metrics["perf/tokens_per_s"],
        }
        self.run_log.line(f"step {step} " + " ".join(f"{name} {value:.4g}" for name, value in shown.items()))
        self.progress.update(step, **shown)

    def _record(self, step: int, collected: Collected, batch: WeighedBatch | None) -> None:
        """Rank 0 writes the lines of the first samples, each of which its own rank makes; beside the next step."""
        # The first token's: an advantage that differs by token is a sum over the tokens from there on.
        advantages = batch.everywhere(batch.advantage[:, :1].sum(1)).tolist() if batch else []
        rows = ((group.prompt, facts) for group in collected.groups for facts in group.samples)
        first = enumerate(islice(zip(rows, advantages, strict=True), self.settings.records_per_step))
        lines = {
            row: record(step, prompt, facts, collected.store[facts.home[1]], advantage)
            for row, ((prompt, facts), advantage) in first
            if facts.home[0] == self.rank
        }
        everyone = to_rank_0(lines)
        if everyone is not None:
            self._finish_records()
            found = sorted(item for share in everyone for item in share.items())
            folder = self.plan.folder.path
            self._writing = Background(lambda: write_records(folder, step, [line for _, line in found]), "records")

    def _finish_records(self) -> None:
        """Returns when no records are being written. OSError if they could not be."""
        if self._writing is not None:
            self._writing.wait()
            if self._writing.error:
                raise self._writing.error
            self._writing = None

    def _speed(self, table: Table | None, seconds: dict[str, float]) -> dict[str, float]:
        """Tokens and operations per second and device, of the phases that run the actor."""
        if table is None:
            return {}
        lengths = (table.prompt_tokens + table.tokens).tolist()
        arch, devices = self.plan.arch, self.plan.layout.world
        passes = 2 if self.plan.config.algorithm.needs_reference else 1
        work = {"score": passes * forward_flops(arch, lengths), "update": training_flops(arch, lengths)}
        peak = platform.peak_flops(self.plan.config.model.dtype)
        found = {}
        for phase, flops in work.items():
            device_seconds = devices * max(seconds[phase], 1e-9)
            rate = flops / device_seconds
            found[f"perf/{phase}_tokens_per_s_per_device"] = sum(lengths) / device_seconds
            found[f"perf/{phase}_gflops_per_device"] = rate / 1e9
            if peak:
                found[f"perf/{phase}_mfu"] = rate / peak
        return found

    def close(self) -> None:
        """Closes bar and event file."""
        if self.enabled:
            self._finish_records()
            self.progress.close()
            self.log.close()

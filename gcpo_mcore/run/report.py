"""What a run tells: derived sizes, progress, metrics, rollout records. Rank 0 speaks, the others are silent."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from gcpo_mcore.base import platform
from gcpo_mcore.batch import Table, WeighedBatch
from gcpo_mcore.hf.flops import forward_flops, training_flops
from gcpo_mcore.monitor.metrics import MetricsLog
from gcpo_mcore.monitor.progress import Progress
from gcpo_mcore.monitor.tables import print_sizes
from gcpo_mcore.monitor.tracking import Step, TrackedRun, Tracking
from gcpo_mcore.run.collector import Collected
from gcpo_mcore.run.old_logprobs import needs_pass
from gcpo_mcore.run.plan import Plan
from gcpo_mcore.run.recorder import Recorder
from gcpo_mcore.run.token_values import TokenValues

log = logging.getLogger(__name__)

SAMPLES_TOLD = 4  # of a step, to trackers


@dataclass(frozen=True)
class _Outputs:
    """What a started report writes to."""

    metrics: MetricsLog
    tracking: Tracking
    progress: Progress


class Report:
    """Collects the numbers of a step and writes them out, on the rank that is the writer and once it is started."""

    def __init__(self, plan: Plan, rank: int):
        self.plan, self.is_writer = plan, rank == 0
        self.config = plan.config  # of the present training stage
        self.settings = plan.config.monitor
        self._outputs: _Outputs | None = None
        limit = self.settings.records_per_step
        self._recorder = Recorder(plan.folder.path, rank, limit, plan.tokenizer) if self.settings.records else None
        self.token_values = TokenValues(self._token_limit())

    def start(self, done_steps: int, golden: Mapping[str, object]) -> None:
        """Prepares the run folder and prints the table of sizes, with what is to say of the golden answers."""
        if not self.is_writer:
            return
        folder = self.plan.folder
        folder.write_config(self.plan.written)
        folder.keep_model_files(self.plan.config.model.path)
        metrics = MetricsLog(folder.path)
        kept_steps = done_steps if done_steps else -1  # a start from nothing has not even the evaluation before it
        metrics.truncate_after(kept_steps)
        told = TrackedRun(
            name=folder.path.name,
            project=self.settings.tracker_project,
            folder=folder.path,
            config=self.plan.written,
            offline=self.settings.trackers_offline,
        )
        tracking = Tracking(self.settings.trackers, told, kept_steps)
        sizes = self.plan.sizes() | dict(golden)
        print_sizes(f"{folder.path.name}", sizes)
        for name, size in sizes.items():
            log.debug("%s: %s", name, size)
        progress = Progress(self.plan.config.trainer.steps, done_steps, self.settings.progress)
        self._outputs = _Outputs(metrics, tracking, progress)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Metrics that belong to no training step (the evaluation at the start)."""
        if self._outputs:
            self._outputs.metrics.write(step, metrics)
            self._outputs.tracking.tell(Step(step, metrics, {}, []))

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
        if self._recorder:
            self._recorder.record(step, collected, batch, self.token_values.drain())
        if not self._outputs:
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
        self._outputs.metrics.write(step, metrics)
        self._outputs.tracking.tell(Step(step, metrics, _histograms(collected), _shown(collected)))
        self._outputs.progress.update(
            step,
            reward=metrics["reward/mean"],
            all_wrong_fraction=metrics["groups/all_wrong_fraction"],
            golden_injections=int(metrics["groups/golden_injected"]),
            tokens_per_s=metrics["perf/tokens_per_s"],
            held_out=_held_out(metrics),
        )

    def _token_limit(self) -> int | None:
        """Of how many samples of a step the token values are kept; None: of all."""
        limits = (self.settings.records_per_step, self.settings.token_values_per_step)
        given = [limit for limit in limits if limit is not None]
        return min(given, default=None) if self.settings.records else 0

    def _speed(self, table: Table | None, seconds: dict[str, float]) -> dict[str, float]:
        """Tokens and operations per second and device, of the phases that run the actor."""
        if table is None:
            return {}
        lengths = (table.prompt_tokens + table.tokens).tolist()
        arch, devices = self.plan.arch, self.plan.layout.world
        config = self.config
        passes = needs_pass(config) + config.algorithm.needs_reference
        logits = int(table.tokens.sum())
        update = training_flops(arch, lengths, logits, is_frozen=config.model.lora is not None)
        work = {"score": passes * forward_flops(arch, lengths, logits), "update": update}
        peak = platform.peak_flops(config.model.dtype)
        found = {}
        for phase, flops in work.items():
            if not flops:
                continue
            device_seconds = devices * max(seconds[phase], 1e-9)
            rate = flops / device_seconds
            found[f"perf/{phase}_tokens_per_s_per_device"] = sum(lengths) / device_seconds
            found[f"perf/{phase}_gflops_per_device"] = rate / 1e9
            if peak:
                found[f"perf/{phase}_mfu"] = rate / peak
        return found

    def close(self) -> None:
        """Closes the bar; trackers have what they were told."""
        if self._recorder:
            self._recorder.close()
        if self._outputs:
            self._outputs.progress.close()
            self._outputs.tracking.close()


def _held_out(metrics: Mapping[str, float]) -> float | None:
    """The mean over the sources; None in a step without an evaluation."""
    found = [value for name, value in metrics.items() if name.startswith("val/")]
    return sum(found) / len(found) if found else None


def _histograms(collected: Collected) -> dict[str, list[float]]:
    """The values of the step's samples, golden answers among them."""
    samples = [facts for group in collected.groups for facts in group.samples]
    if not samples:
        return {}
    return {"reward": [s.reward for s in samples], "response_tokens": [float(s.tokens) for s in samples]}


def _shown(collected: Collected) -> list[dict[str, Any]]:
    """The first sample of some groups, of those that this rank has."""
    found = []
    for group in collected.groups:
        mine = [facts for facts in group.samples if facts.home[0] == dist.get_rank()]
        if mine and len(found) < SAMPLES_TOLD:
            sample = collected.store[mine[0].home[1]]
            found.append({
                "prompt_id": group.prompt.id, "prompt": group.prompt.text, "response": sample.response_text,
                "reward": mine[0].reward, "is_golden": mine[0].is_golden,
            })  # fmt: skip
    return found

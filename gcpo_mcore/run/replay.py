"""Half a run, to look at: a dumped step's updates made again, or steps that are sampled and never trained on.

Both go on from a checkpoint of the run and leave the run as it is; what they write is in debug/ of its folder.
"""

import os
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.run import setup
from gcpo_mcore.run.collector import Collected, Collector
from gcpo_mcore.run.dump import FOLDER, Dump, read_dump, weights_sum
from gcpo_mcore.run.folder import RunFolder
from gcpo_mcore.run.lock import sole_writer
from gcpo_mcore.run.plan import Plan
from gcpo_mcore.run.report import Report
from gcpo_mcore.run.start import started
from gcpo_mcore.run.trainer import Trainer

# What a step's metrics have to be the same in to the bit, if its update is the same.
COMPARED = ("actor/loss", "actor/grad_norm", "actor/entropy", "actor/lr", "advantage/mean", "update/count")


class FolderToRead(RunFolder):
    """A run folder from which a checkpoint is loaded; nothing in it is set aside."""

    def go_back(self, step: int) -> None:
        """Leaves what is newer where it is."""


class DumpedRollouts(Collector):
    """Stands where the collector does, and has one step's rollouts."""

    def __init__(self, collected: Collected):
        self._collected = collected

    def collect(self, step: int) -> Collected:
        """Those of the dump."""
        return self._collected


def look(plan: Plan) -> None:
    """Does what debug.replay or debug.rollout_only says, as one rank of a run."""
    is_first = os.environ.get("RANK", "0") == "0"
    with sole_writer(plan.folder.path) if is_first else nullcontext(), started(plan) as plan:
        if plan.config.debug.replay:
            _replay(plan, read_dump(Path(plan.config.debug.replay)))
        else:
            _only_roll_out(plan)


def _replay(plan: Plan, dump: Dump) -> None:
    folder = FolderToRead(dump.path.resolve().parents[1])
    if dump.step > 1 and dump.step - 1 not in folder.steps():
        raise UserError(
            f"debug.replay={dump.path}: step {dump.step} began from the checkpoint of step {dump.step - 1}, which "
            f"{folder.checkpoints} has not; dump a step behind a checkpoint (trainer.checkpoint_every_steps)"
        )
    debug = plan.config.debug.model_copy(update={"dump": []})  # it has been dumped
    config = plan.config.model_copy(update={"debug": debug})
    with setup.trainer(replace(plan, config=config)) as trainer:
        trainer.plan = replace(trainer.plan, folder=folder)
        if dump.step > 1:
            trainer.restore(dump.step - 1)
        if trainer.step != dump.step - 1:
            raise UserError(f"debug.replay={dump.path}: the checkpoint of step {dump.step - 1} is damaged")
        trainer.step = dump.step
        trainer.collector = DumpedRollouts(dump.collected(dist.get_rank(), dist.get_world_size()))
        metrics, _, _ = trainer.train_step()
        weights = weights_sum(trainer.actor)
    if dist.get_rank() == 0:
        print("\n".join(compared(dump, metrics, weights)))


def compared(dump: Dump, metrics: dict[str, float], weights: str) -> list[str]:
    """Lines that say what the step came to, and what it had come to when it was dumped."""
    before = dump.after.get("metrics", {})
    if not dump.after:
        return [f"step {dump.step} did not end when it was dumped; now: weights {weights}"]
    lines = [
        f"  {name}: {metrics[name]!r}, before {before.get(name)!r}"
        for name in COMPARED
        if name in metrics and metrics[name] != before.get(name)
    ]
    is_same = weights == dump.after["weights"]
    verdict = "the same to the bit" if is_same else "not the same"
    return [f"step {dump.step}: the weights after it are {verdict} ({weights})", *lines]


def _only_roll_out(plan: Plan) -> None:
    beside = RunFolder(plan.folder.path / FOLDER)
    quiet = plan.config.monitor.model_copy(update={"trackers": []})
    config = plan.config.model_copy(update={"monitor": quiet})
    with setup.trainer(replace(plan, config=config)) as trainer:
        trainer.plan = replace(trainer.plan, folder=FolderToRead(plan.folder.path))
        if plan.checkpoint_step:
            trainer.restore(plan.checkpoint_step)
        report = Report(replace(plan, config=config, folder=beside), dist.get_rank())
        report.start(trainer.step, {})
        end = min(config.trainer.steps, config.trainer.stop_at_step or config.trainer.steps)
        for step in range(trainer.step + 1, end + 1):
            _roll_out(trainer, report, step)
        report.close()
    if dist.get_rank() == 0:
        print(f"sampled steps {plan.checkpoint_step + 1} to {end} and trained on none: {beside.path}/rollouts")


def _roll_out(trainer: Trainer, report: Report, step: int) -> None:
    began = time.monotonic()
    collected = trainer.collector.collect(step)
    trainer.debugging.dump(step, collected)
    trainer.engine.rest()
    metrics = collected.metrics | trainer.engine.metrics() | trainer.memory.drain()
    report.step(step, metrics, collected, None, trainer.phases.drain(), time.monotonic() - began)

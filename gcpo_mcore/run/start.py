"""Where a run begins: rank 0 looks into the run folder and tells the others; then all compare what they have."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gcpo_mcore.base import platform
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.sums import sum_of
from gcpo_mcore.run.agreement import check_agreement, decided
from gcpo_mcore.run.config import RunConfig
from gcpo_mcore.run.facts import facts, inputs
from gcpo_mcore.run.folder import RunFolder, check, check_architecture
from gcpo_mcore.run.lock import is_restarted
from gcpo_mcore.run.manifest import NAME
from gcpo_mcore.run.plan import Plan
from gcpo_mcore.run.setup import process_group

log = logging.getLogger(__name__)


@contextmanager
def started(plan: Plan) -> Iterator[Plan]:
    """The scope in which this rank is one of the run's ranks; the plan with the checkpoint that all go on from.

    UserError on all ranks if the run folder is another run's or has no good checkpoint, or if their plans differ.
    """
    platform.keep_memory()
    parallel = plan.config.parallel
    if parallel.tensor > 1:
        platform.keep_launch_order()
    with process_group(parallel.threads, plan.config.monitor.phase_deadline_s, products=parallel.cpu_products):
        plan = replace(plan, inputs=inputs(plan))
        step = decided(lambda: _find_checkpoint(plan))
        check_agreement({**facts(plan), "the checkpoint": _seen(plan, step)})
        yield replace(plan, checkpoint_step=step)


def _seen(plan: Plan, step: int) -> str:
    """What this rank sees of the checkpoint: its step and the sum of its manifest."""
    if not step:
        return "none"
    checkpoint = plan.folder.folder(step)
    try:
        return f"{checkpoint.name} ({sum_of((checkpoint / NAME).read_bytes()).digest})"
    except OSError as error:
        return f"{checkpoint}: {error.strerror}"


def _find_checkpoint(plan: Plan) -> int:
    """The step of the newest good checkpoint, 0 if there is none yet."""
    config, folder = plan.config, plan.folder
    if not folder.steps() and not wanted_step(config):
        return 0
    if config.run.resume == "never":
        raise UserError(f"run.resume=never, but {folder.path} has checkpoints; choose another run.name, or remove it")
    found = _of_step(folder, step) if (step := wanted_step(config)) else folder.newest_good(reads_all=False)
    if found is None:
        raise UserError(f"{folder.path}: no checkpoint is good; remove the folder to start anew")
    check_architecture(found, plan.arch)
    folder.check_same_run(plan.written, set(config.free_keys()), set(config.mappings()))
    step = int(found.name.removeprefix("step_"))
    _check_inputs(plan, step)
    return step


def _check_inputs(plan: Plan, step: int) -> None:
    """UserError, or with run.changed_inputs=allow a warning, if the run reads other things than the checkpoint's did.

    Of what only one of them has, a configuration says so.
    """
    then = plan.folder.state(step).get("inputs", {})  # older ones have none
    for name in [name for name in then if plan.inputs.get(name, then[name]) != then[name]]:
        words = f"{name} changed since {plan.folder.folder(step)} was made"
        if plan.config.run.changed_inputs == "refuse":
            raise UserError(f"{words}; run.changed_inputs=allow goes on with what is there now")
        log.warning(words)


def wanted_step(config: RunConfig) -> int | None:
    """run.resume_step; None where a launcher repeats the command by itself, which would throw steps away each time."""
    return None if is_restarted() else config.run.resume_step


def _of_step(folder: RunFolder, step: int) -> Path:
    if step not in folder.steps():
        there = ", ".join(map(str, reversed(folder.steps())))
        raise UserError(
            f"run.resume_step={step}: {folder.checkpoints} has no checkpoint of that step, but of {there or 'none'}"
        )
    if problem := check(folder.folder(step), reads_all=False):
        raise UserError(f"run.resume_step={step}: {folder.folder(step)}: {problem}")
    return folder.folder(step)

"""Trains a language model by reinforcement learning with verifiable rewards.

    torchrun --nproc-per-node 8 tools/train.py model=qwen2.5-1.5b data=files data.train.train.path=FILE
    python tools/train.py algorithm=grpo algorithm/kl=k3 trainer.steps=100 run.name=mine

Without torchrun it runs as one process. Everything that a run writes is in runs/NAME (run.folder, run.name), and the
same command goes on from the newest good checkpoint there.
"""

import os

from gcpo_mcore.monitor.run_log import log_to_stderr
from gcpo_mcore.run.load import parse, run_tool


def train(composed) -> None:
    """The run that a composed configuration describes."""
    from gcpo_mcore.base.errors import UserError
    from gcpo_mcore.base.program import command
    from gcpo_mcore.base.stop import stoppable
    from gcpo_mcore.monitor import heartbeat
    from gcpo_mcore.run.lock import sole_writer
    from gcpo_mcore.run.plan import make_plan

    config = parse(composed)
    if config.benchmark:
        raise UserError(f"benchmark= is read by `{command('evaluate')}`; training reads data.eval")
    with stoppable(config.monitor.stop_deadline_s, heartbeat.gone) as stop:
        plan = make_plan(config)
        if config.debug.replay or config.debug.rollout_only:
            from gcpo_mcore.run.replay import look

            return look(plan)
        if os.environ.get("RANK", "0") != "0":
            _run(plan, stop)
            return  # what is left to do takes one process
        with sole_writer(plan.folder.path):
            begun, done, result = _run(plan, stop)
            _finish(plan, begun, done, result)


def _run(plan, stop) -> tuple[int, int, dict[str, float]]:
    """Trains; the steps at which that began and ended, and the last evaluation's metrics. Nothing that it built is
    left. Stopped, if a signal ended it."""
    from gcpo_mcore.base.errors import Stopped
    from gcpo_mcore.run import setup
    from gcpo_mcore.run.start import started

    steps = plan.config.trainer.steps
    with started(plan) as plan:
        begun = plan.checkpoint_step
        if begun >= steps:
            return begun, begun, {}
        with setup.trainer(plan) as trainer:
            result = trainer.run(stop)
    if trainer.stopped_by:
        raise Stopped(
            f"{trainer.stopped_by}: stopped at step {trainer.step} of {steps}, with a checkpoint; "
            "the same command goes on"
        )
    stop.raise_at_once()
    return begun, trainer.step, result


def _finish(plan, begun: int, done: int, result: dict[str, float]) -> None:
    """Exports what the run has come to, if it has come to its end, and says how it stands."""
    steps = plan.config.trainer.steps
    if done < steps:
        print(f"stopped at step {done} of {steps}: the same command without trainer.stop_at_step goes on")
        return
    if begun >= steps:
        print(f"{plan.folder.path} is at step {done} of trainer.steps={steps}: nothing left to train")
        if plan.folder.has_export_of(done):
            return
    export(plan, done)
    print("held out: " + ("  ".join(f"{k} {v:.3f}" for k, v in result.items()) or "not evaluated"))


def export(plan, step: int) -> None:
    """Writes the run's Hugging Face folder from the checkpoint of `step`, as tools/convert.py would."""
    from gcpo_mcore.convert.convert import ExportSettings, checkpoint_to_hf
    from gcpo_mcore.monitor.watchdog import phase

    settings = ExportSettings(is_gated=plan.config.trainer.gate_exports, replaces=True)
    with phase("export", plan.config.monitor.export_deadline_s, rank=0):
        checkpoint_to_hf(plan.folder, step, plan.folder.export, settings)
    plan.folder.note_export(step)
    print(f"Hugging Face export: {plan.folder.export}")


@log_to_stderr()
def main() -> None:
    """The command."""
    run_tool(train)


if __name__ == "__main__":
    main()

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
    from gcpo_mcore.run import setup
    from gcpo_mcore.run.plan import make_plan

    config = parse(composed)
    if config.benchmark:
        raise UserError(f"benchmark= is read by `{command('evaluate')}`; training reads data.eval")
    plan = make_plan(config)
    steps, done = plan.config.trainer.steps, plan.checkpoint_step
    if done >= steps and plan.folder.export.is_dir():
        if os.environ.get("RANK", "0") == "0":
            print(f"{plan.folder.path} is at step {done} of trainer.steps={steps}: nothing left to train")
        return
    with setup.trainer(plan) as trainer:
        result = trainer.run()
        if trainer.step < steps:
            if trainer.is_writer:
                print(
                    f"stopped at step {trainer.step} of {steps}: the same command without trainer.stop_at_step goes on"
                )
            return
        trainer.export()
        if trainer.is_writer:
            print(f"Hugging Face export: {plan.folder.export}")
            print("held out: " + ("  ".join(f"{k} {v:.3f}" for k, v in result.items()) or "not evaluated"))


@log_to_stderr()
def main() -> None:
    """The command."""
    run_tool(train)


if __name__ == "__main__":
    main()

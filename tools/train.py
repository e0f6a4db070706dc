"""Trains: torchrun --nproc-per-node N tools/train.py [algorithm=gcpo] [group=choice] [a.b=value]

`--cfg job` prints the composed configuration, `--help` the groups. The same command goes on from the run's
newest good checkpoint. Without torchrun it runs as one process.
"""

from gcpo_mcore.config.load import parse, run_tool


def main(composed) -> None:
    from omegaconf import OmegaConf

    from gcpo_mcore import setup
    from gcpo_mcore.plan import make_plan

    plan = make_plan(parse(composed), OmegaConf.to_container(composed, resolve=True))
    with setup.trainer(plan) as trainer:
        if plan.checkpoint_step >= plan.config.trainer.steps:
            if trainer.is_writer:
                print(
                    f"{plan.folder.path} is at step {plan.checkpoint_step} of trainer.steps={plan.config.trainer.steps}: "
                    "nothing left to train"
                )
            return
        result = trainer.run()
        trainer.export()
        if trainer.is_writer:
            print(f"Hugging Face export: {plan.folder.export}")
            print("held out: " + ("  ".join(f"{k} {v:.3f}" for k, v in result.items()) or "not evaluated"))


if __name__ == "__main__":
    run_tool(main)

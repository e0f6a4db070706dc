"""Run by test_fused_adam.py: python fused_adam_worker.py MODEL OUT.json FOLDER

An actor whose Adam counts its updates as Transformer Engine's FusedAdam and apex's do. Three updates, a checkpoint
after the second; another actor loads it and takes the third. OUT gets, by optimizer of megatron, the counts and
whether the weights are the same bit by bit.
"""

import json
import sys
from pathlib import Path
from unittest import mock

import torch
from megatron.core import optimizer as megatron_optimizer
from megatron.core import parallel_state
from megatron.core.optimizer import distrib_optimizer

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.checkpoint import load_actor
from gcpo_mcore.actor.checkpoint_writer import save_actor
from gcpo_mcore.run.setup import process_group
from tests.actor.worker import build_actor, deal, gcpo, take_update

CASES = {"plain": {}, "distributed": {"distributed_optimizer": "1", "dtype": "bfloat16"}}


class GroupCountingAdam(torch.optim.Optimizer):
    """AdamW with 'step' in the group, which is not there before the first update (TE fused_adam.py, apex likewise)."""

    def __init__(self, params, lr, betas, eps, weight_decay, adam_w_mode):
        assert adam_w_mode
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            group["step"] = group["step"] + 1 if "step" in group else 1
            (one, two), step = group["betas"], group["step"]
            for weight in (p for p in group["params"] if p.grad is not None):
                mean, square = self.state[weight]["exp_avg"], self.state[weight]["exp_avg_sq"]
                mean.mul_(one).add_(weight.grad, alpha=1 - one)
                square.mul_(two).addcmul_(weight.grad, weight.grad, value=1 - two)
                size = (square / (1 - two**step)).sqrt_().add_(group["eps"])
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.addcdiv_(mean / (1 - one**step), size, value=-group["lr"])


def counts(actor: Actor) -> list[int]:
    """Updates done, by group."""
    inner = actor.stage().optimizer.chained_optimizers
    assert all(isinstance(each.optimizer, GroupCountingAdam) for each in inner)
    return [group["step"] for each in inner for group in each.optimizer.param_groups]


def main(model: str, out: str, folder: str) -> None:
    result, algorithm = {}, gcpo()
    fused = {"Adam": GroupCountingAdam, "USING_PYTORCH_OPTIMIZER": False}
    with (
        process_group(threads=1, deadline_s=900),
        mock.patch.multiple(megatron_optimizer, **fused),
        mock.patch.object(distrib_optimizer, "Adam", GroupCountingAdam),
    ):
        for name, options in CASES.items():
            whole = build_actor(model, options)
            batch, checkpoint = deal(whole), Path(folder) / name
            for update in range(2):
                take_update(whole, algorithm, batch, update)
            checkpoint.mkdir()
            save_actor(whole, checkpoint)
            take_update(whole, algorithm, batch, 2)
            parallel_state.destroy_model_parallel()
            again = build_actor(model, options)
            load_actor(again, checkpoint, sums={})
            loaded = counts(again)
            take_update(again, algorithm, batch, 2)
            pairs = zip(whole.stage().parameters(), again.stage().parameters(), strict=True)
            is_same = all(torch.equal(mine, theirs) for mine, theirs in pairs)
            result[name] = {"loaded": loaded, "after": counts(again), "whole": counts(whole), "is_same": is_same}
            parallel_state.destroy_model_parallel()
    Path(out).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])

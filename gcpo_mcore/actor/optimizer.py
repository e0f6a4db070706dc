"""AdamW as megatron-core builds it, its learning-rate schedule, and the guard against non-finite gradients."""

import math

import torch
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import ChainedOptimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig

from gcpo_mcore.actor.config import OptimizerConfig, ParallelConfig, RateConfig
from gcpo_mcore.actor.optimizer_state import counts_in_groups
from gcpo_mcore.base import platform
from gcpo_mcore.base.errors import UserError


def build_optimizer(
    config: OptimizerConfig, parallel: ParallelConfig, chunks: list[DistributedDataParallel], dtype: torch.dtype
) -> ChainedOptimizer:
    """Builds megatron-core's optimizer over the gradient buffers of the stage's chunks."""
    with platform.megatron():
        optimizer = get_megatron_optimizer(
            MegatronOptimizerConfig(
                optimizer="adam",
                lr=config.lr,
                weight_decay=config.weight_decay,
                adam_beta1=config.beta1,
                adam_beta2=config.beta2,
                adam_eps=config.eps,
                clip_grad=config.clip_grad_norm,
                params_dtype=dtype,
                bf16=dtype is torch.bfloat16,
                use_distributed_optimizer=parallel.distributed_optimizer,
                overlap_param_gather=parallel.overlaps_gather,
            ),
            [*chunks],
        )
    assert isinstance(optimizer, ChainedOptimizer)  # of one or two: experts have their own
    with platform.megatron():
        allocate_state(optimizer)
    return optimizer


def learning_rate(config: RateConfig, update: int, updates: int) -> float:
    """The rate of update number `update` (from 0) of `updates`.

    Rises linearly over `warmup_updates` (the first update has lr / warmup_updates), then stays, or falls to
    lr * final_lr_fraction at the last update: in a line, or as half a cosine. The fall begins when
    `decay_start_fraction` of the updates after the warm-up are done.
    """
    if update < config.warmup_updates:
        return config.lr * (update + 1) / config.warmup_updates
    done = (update - config.warmup_updates) / max(updates - 1 - config.warmup_updates, 1)
    done = max(done - config.decay_start_fraction, 0.0) / (1 - config.decay_start_fraction)
    fall = {"constant": 0.0, "linear": done, "cosine": (1 - math.cos(math.pi * done)) / 2}[config.schedule]
    return config.lr * (1 - (1 - config.final_lr_fraction) * min(fall, 1.0))


class UpdatesSkipped(UserError):
    """Too many updates in a row were left out."""


class Stepper:
    """Does optimizer steps and leaves out those with a non-finite gradient norm, `skipped_in_a_row` the last ones.

    UpdatesSkipped when `max_skipped_updates` updates in a row were left out.
    """

    def __init__(self, config: OptimizerConfig, optimizer: ChainedOptimizer):
        self.config = config
        self.optimizer = optimizer
        self.skipped_in_a_row = 0

    def step(self, lr: float) -> dict[str, float]:
        """One update with the gradients that are ready. Returns gradient norm, rate and whether it was left out."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with platform.megatron():
            self.optimizer.prepare_grads()
            norm = float(self.optimizer.get_grad_norm())
            is_finite = math.isfinite(norm)
            if is_finite:
                self.optimizer.step()
            self.optimizer.zero_grad()
        self.skipped_in_a_row = 0 if is_finite else self.skipped_in_a_row + 1
        if self.skipped_in_a_row >= self.config.max_skipped_updates:
            raise UpdatesSkipped(
                f"phase update: the gradient norm was not finite in {self.skipped_in_a_row} updates in a row "
                "(optimizer.max_skipped_updates)"
            )
        return {"actor/grad_norm": norm, "actor/lr": lr, "actor/update_skipped": float(not is_finite)}


def allocate_state(optimizer: ChainedOptimizer) -> None:
    """Makes zero moments and step, as the first update would: a checkpoint can be written before it and filled
    from one.
    """
    for inner in optimizer.chained_optimizers:
        inner.init_state_fn(inner.optimizer, inner.config)
        if not counts_in_groups(inner.optimizer):
            for state in inner.optimizer.state.values():
                state.setdefault("step", torch.zeros(()))

"""This rank's stage of the pipeline: its models, their gradient buffers and the optimizer over them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads
from megatron.core.optimizer import ChainedOptimizer

from gcpo_mcore.actor import hf_mapping
from gcpo_mcore.actor.adapter import attach
from gcpo_mcore.actor.adapter_places import described
from gcpo_mcore.actor.adapter_start import fill_adapters
from gcpo_mcore.actor.backend import Backend
from gcpo_mcore.actor.config import ModelConfig, OptimizerConfig, ParallelConfig
from gcpo_mcore.actor.layout import Layout
from gcpo_mcore.actor.model import build_chunks, wrap_data_parallel
from gcpo_mcore.actor.optimizer import build_optimizer
from gcpo_mcore.actor.policy_model import PolicyModel
from gcpo_mcore.base.collectives import from_every_rank, from_rank_0
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf.architecture import Architecture


@dataclass(frozen=True)
class Stage:
    """The share of the model that a rank trains.

    chunks     its models, in the order in which a micro-batch passes them
    ddp        the same, each with its gradient buffers
    optimizer  megatron-core's, with its state
    adapted    of an adapter what a checkpoint says of it and of its base; {} where all weights are trained
    """

    chunks: list[PolicyModel]
    ddp: list[DistributedDataParallel]
    optimizer: ChainedOptimizer
    adapted: dict[str, Any]

    def parameters(self) -> list[torch.nn.Parameter]:
        """Every weight of the stage, in a fixed order."""
        return [parameter for chunk in self.chunks for parameter in chunk.parameters()]

    def gradient_buffers(self) -> list[torch.Tensor]:
        """The flat fp32 tensors that the gradients of all weights are views of."""
        found: list[torch.Tensor] = []
        for chunk in self.ddp:
            dense: Any = chunk.buffers  # megatron's list, by the name of a method of torch's
            found += [buffer.grad_data for buffer in [*dense, *chunk.expert_parallel_buffers]]
        return found


def build_stage(
    model: ModelConfig,
    arch: Architecture,
    parallel: ParallelConfig,
    layout: Layout,
    optimizer: OptimizerConfig,
    backend: Backend,
) -> Stage:
    """The stage with the weights of `model.path` and an optimizer that has done no update. A collective over all
    ranks."""
    dtype = getattr(torch, model.dtype)
    chunks = build_chunks(arch, parallel, layout, dtype, backend)
    hf_mapping.mark_tensor_parallel(chunks, arch)
    if model.lora:
        attach(chunks, arch, model.lora)
    adapted = _load(chunks, arch, model)
    ddp = [wrap_data_parallel(chunk, parallel) for chunk in chunks]
    stage = Stage(chunks, ddp, build_optimizer(optimizer, parallel, ddp, dtype), adapted)
    _set_hooks(stage, parallel)
    return stage


def _load(chunks: list[PolicyModel], arch: Architecture, model: ModelConfig) -> dict[str, Any]:
    """Fills the stage, and returns what `Stage.adapted` is; a UserError of one rank, about its own tensors, is every
    rank's."""
    problem, base = None, ""
    try:
        weights = hf_mapping.HfWeights(model.path, arch)
        hf_mapping.load(chunks, arch, weights)
        if model.lora:
            fill_adapters(chunks, arch, model.lora)
            base = weights.checksum() if dist.get_rank() == 0 else ""
    except UserError as error:
        problem = str(error)
    if found := [told for told in from_every_rank(problem) if told]:
        raise UserError(found[0])
    return described(model.lora, arch, from_rank_0(base)) if model.lora else {}


def _set_hooks(stage: Stage, parallel: ParallelConfig) -> None:
    """Tells megatron-core's schedules how gradients are summed."""
    for chunk in stage.chunks:
        if parallel.overlap:  # megatron leaves the sums to the last micro-batch
            chunk.config.no_sync_func = partial(_no_sync, stage.ddp)
        chunk.config.finalize_model_grads_func = _finalize_sums
        chunk.config.grad_scale_func = stage.optimizer.scale_loss


@contextmanager
def _no_sync(ddp: list[DistributedDataParallel]) -> Iterator[None]:
    """A scope in which no chunk's gradients are summed over the ranks."""
    with ExitStack() as stack:
        for chunk in ddp:
            stack.enter_context(chunk.no_sync())
        yield


def _finalize_sums(model, num_tokens=None, **kwargs) -> None:
    """megatron's gradient reductions without its division by a token count: our losses are sums."""
    finalize_model_grads(model, None, **kwargs)

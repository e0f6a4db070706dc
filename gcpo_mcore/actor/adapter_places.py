"""Where an adapter's A and B lie in a checkpoint: `adapter.LAYER.A` and `.B`, by the layer's Hugging Face name, whole.

A checkpoint of an adapter has these, their optimizer state, and what it is `described` by, but no weight of its base.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from megatron.core.models.gpt import GPTModel

from gcpo_mcore.actor.adapter import adapters
from gcpo_mcore.actor.adapter_layers import Factor, LinearAdapter
from gcpo_mcore.actor.config import LoraAdapter
from gcpo_mcore.actor.hf_mapping import hf_shapes
from gcpo_mcore.base.collectives import to_rank_0
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf import lora
from gcpo_mcore.hf.architecture import Architecture


def key(layer: str, kind: str) -> str:
    """The name of a layer's A or B in a checkpoint."""
    return f"adapter.{layer}.{kind}"


def described(config: LoraAdapter, arch: Architecture, base: str) -> dict[str, Any]:
    """What a checkpoint says of an adapter whose base has the checksum `base` (hf_mapping.HfWeights)."""
    layers = sorted(lora.targets_of(list(hf_shapes(arch)), config.targets))
    return {"rank": config.rank, "alpha": config.alpha, "rslora": config.rslora, "layers": layers, "base": base}


def check_described(checkpoint: Path, there: dict[str, Any], mine: dict[str, Any], model: str) -> None:
    """UserError if the adapter of `checkpoint` is not this actor's, or of another base than the folder `model`."""
    if there == mine:
        return
    if not there or not mine:
        has, wanted = ("an adapter", "none") if there else ("no adapter", "lora")
        raise UserError(f"{checkpoint} has {has}, the run model/adapter={wanted}")
    if there.get("base") != mine["base"]:
        raise UserError(
            f"{checkpoint}: its adapter is of another base: one of weights with checksum {there.get('base')}, those of "
            f"model.path={model} have {mine['base']}"
        )
    key = next(key for key, value in mine.items() if there.get(key) != value)
    raise UserError(f"{checkpoint}: its adapter has another {key} than model.adapter")


def adapter_places(chunks: Sequence[GPTModel]) -> Iterator[ShardedTensor]:
    """The place of every A and B of a stage's chunks. Runs inside `platform.megatron()`."""
    for adapter in adapters(chunks):
        for factor in adapter.factors():
            yield _place(adapter, factor)


def whole_factors(chunks: Sequence[GPTModel]) -> list[tuple[str, str, torch.Tensor]]:
    """(layer, 'A' or 'B', whole tensor on the CPU) of all stages on rank 0, [] elsewhere. A collective of all ranks."""
    mine = []
    for adapter in adapters(chunks):
        for factor in adapter.factors():
            if not any(_replica(adapter, factor)):  # one of the ranks that have the same
                mine.append((factor.layer, factor.kind, factor.axis or 0, factor.part.detach().cpu()))
    found: dict[tuple[str, str], list[torch.Tensor]] = {}
    axes: dict[tuple[str, str], int] = {}
    for layer, kind, axis, part in (entry for of_rank in to_rank_0(mine) or [] for entry in of_rank):
        found.setdefault((layer, kind), []).append(part)  # ranks of a tensor group come in their order
        axes[layer, kind] = axis
    return [(*name, torch.cat(parts, dim=axes[name])) for name, parts in sorted(found.items())]


def _place(adapter: LinearAdapter, factor: Factor) -> ShardedTensor:
    tensor = parallel_state.get_tensor_model_parallel_rank()
    size = parallel_state.get_tensor_model_parallel_world_size()
    offsets = [] if factor.axis is None else [(factor.axis, tensor, size)]
    name, replica = key(factor.layer, factor.kind), _replica(adapter, factor)
    return ShardedTensor.from_rank_offsets(name, factor.part, *offsets, replica_id=replica)


def _replica(adapter: LinearAdapter, factor: Factor) -> tuple[int, int, int]:
    """Which of those that have the same this rank is: of the stages, the tensor group and the data-parallel ranks."""
    if adapter.is_expert:
        return 0, 0, parallel_state.get_expert_data_parallel_rank()
    tensor = parallel_state.get_tensor_model_parallel_rank() if factor.axis is None else 0
    return 0, tensor, parallel_state.get_data_parallel_rank(with_context_parallel=True)

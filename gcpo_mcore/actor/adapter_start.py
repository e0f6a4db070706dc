"""The first values of an adapter: those of `hf.lora`, or a PEFT folder's."""

from collections.abc import Sequence

import torch
from megatron.core.models.gpt import GPTModel

from gcpo_mcore.actor import groups
from gcpo_mcore.actor.adapter import adapters
from gcpo_mcore.actor.adapter_check import open_start
from gcpo_mcore.actor.adapter_layers import Factor
from gcpo_mcore.actor.config import LoraAdapter
from gcpo_mcore.actor.hf_mapping import hf_shapes
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf import lora
from gcpo_mcore.hf.architecture import Architecture
from gcpo_mcore.hf.peft import PeftFolder


@torch.no_grad()
def fill_adapters(chunks: Sequence[GPTModel], arch: Architecture, config: LoraAdapter) -> None:
    """Gives every A and B of a stage's chunks its first values. UserError for a PEFT folder that is another adapter."""
    folder = open_start(config) if config.start else None
    if folder:
        _check_layers(folder, config, arch)
    for adapter in adapters(chunks):
        for factor in adapter.factors():
            whole = folder.factor(factor.layer, factor.kind) if folder else None
            part = _first(factor, config) if whole is None else _part(factor, whole)
            if part.shape != factor.part.shape:
                raise UserError(
                    f"{config.start}: {factor.kind} of {factor.layer} has shape {list(part.shape)}, "
                    f"the model wants {list(factor.part.shape)}"
                )
            factor.part.copy_(part)


def _check_layers(folder: PeftFolder, config: LoraAdapter, arch: Architecture) -> None:
    wanted = lora.targets_of(list(hf_shapes(arch)), config.targets)
    if different := sorted(wanted ^ folder.layers):
        has = "has" if different[0] in folder.layers else "does not have"
        raise UserError(f"model.adapter.targets: the adapter in {config.start} {has} {different[0]}")


def _first(factor: Factor, config: LoraAdapter) -> torch.Tensor:
    if factor.kind == "B":
        return torch.zeros_like(factor.part)
    in_features = factor.part.shape[1] * (groups.tensor_group().size() if factor.axis == 1 else 1)
    return _part(factor, lora.starting_a(factor.layer, config.rank, in_features, config.seed))


def _part(factor: Factor, whole: torch.Tensor) -> torch.Tensor:
    """This rank's of a whole A or B."""
    if factor.axis is None:
        return whole
    tensor = groups.tensor_group()
    return whole.chunk(tensor.size(), dim=factor.axis)[tensor.rank()]

"""The first values of an adapter: those of `hf.lora`, or a PEFT folder's."""

from collections.abc import Sequence

import torch
from megatron.core.models.gpt import GPTModel

from gcpo_mcore.actor import groups
from gcpo_mcore.actor.adapter import adapters
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
    folder = open_start(config, arch) if config.start else None
    for adapter in adapters(chunks):
        for factor in adapter.factors():
            whole = folder.factor(factor.layer, factor.kind) if folder else None
            factor.part.copy_(_first(factor, config) if whole is None else _part(factor, whole))


def open_start(config: LoraAdapter, arch: Architecture) -> PeftFolder:
    """The PEFT folder that `config.start` names. UserError, naming the key, if it is not the adapter of `config`."""
    assert config.start is not None
    folder = PeftFolder(config.start)
    for key, mine, theirs in (
        ("rank", config.rank, folder.rank),
        ("alpha", config.alpha, folder.alpha),
        ("rslora", config.rslora, folder.is_rank_stabilised),
    ):
        if mine != theirs:
            raise UserError(f"model.adapter.{key}={mine}: the adapter in {config.start} has {theirs}")
    wanted = lora.targets_of(list(hf_shapes(arch)), config.targets)
    if different := sorted(wanted ^ folder.layers):
        has = "has" if different[0] in folder.layers else "does not have"
        raise UserError(f"model.adapter.targets: the adapter in {config.start} {has} {different[0]}")
    return folder


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

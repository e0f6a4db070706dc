"""Low-rank adapters on this rank's stage: put beside the frozen layers, switched, merged into what is exported.

adapter_layers.py has what they compute, adapter_start.py their first values, adapter_places.py their place in a
checkpoint; hf/lora.py the equation, hf/peft.py the folders in which others keep them. A model without adapters has no
`LinearAdapter` among its modules, and nothing here does anything to it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from megatron.core.models.gpt import GPTModel

from gcpo_mcore.actor import groups, hf_mapping
from gcpo_mcore.actor.adapter_layers import ColumnAdapter, Form, LinearAdapter, Member, RowAdapter
from gcpo_mcore.actor.config import LoraAdapter
from gcpo_mcore.actor.hf_mapping import ADAPTER
from gcpo_mcore.hf import lora
from gcpo_mcore.hf.architecture import Architecture


def adapters(chunks: Iterable[GPTModel]) -> list[LinearAdapter]:
    """Those of a stage's chunks, in a fixed order."""
    return [module for chunk in chunks for module in chunk.modules() if isinstance(module, LinearAdapter)]


def attach(chunks: Sequence[GPTModel], arch: Architecture, config: LoraAdapter) -> None:
    """Freezes every weight of a stage's chunks and puts adapters, with no values yet, beside its target layers."""
    wanted = lora.targets_of(list(hf_mapping.hf_shapes(arch)), config.targets)
    tensor, is_sequence_parallel = groups.tensor_group(), chunks[0].config.sequence_parallel
    own = config.dtype == "model"
    form = Form(
        config.rank, config.scale, chunks[0].config.params_dtype if own else torch.float32, is_sequence_parallel
    )
    owners = {id(module.weight): module for chunk in chunks for module in chunk.modules() if hasattr(module, "weight")}
    named = list(hf_mapping.local_parameters(chunks, arch))
    for chunk in chunks:
        chunk.requires_grad_(False)
    for local, weight in named:
        members = _members(local, arch, tensor.size(), wanted)
        if any(member.is_adapted for member in members):
            kind = RowAdapter if local.rule.cut == "columns" else ColumnAdapter
            group = tensor if local.expert is None and tensor.size() > 1 else None
            _put(owners[id(weight)], kind(weight, members, form, group, is_expert=local.expert is not None))
    for chunk in chunks:
        if chunk.pre_process:  # a layer that is recomputed gets no gradient if its input has none
            chunk.embedding.register_forward_hook(_want_gradient)


def _members(local: hf_mapping.Local, arch: Architecture, tensor: int, wanted: set[str]) -> list[Member]:
    """The Hugging Face layers of one parameter; [] if it is no linear layer's weight."""
    if local.rule.cut not in ("qkv", "gate_up", "columns") or not local.name.endswith(".weight"):
        return []
    layers = [name.removesuffix(".weight") for name in local.hf_names(hf_mapping.expert_rank())]
    t = 1 if local.expert is not None else tensor
    rows = {
        "qkv": [arch.heads // arch.kv_heads * arch.head_dim, arch.head_dim, arch.head_dim],  # of a kv head
        "gate_up": [(arch.moe.intermediate if arch.moe else arch.intermediate) // t] * 2,
        "columns": [arch.hidden],
    }[local.rule.cut]
    return [Member(layer, count, layer in wanted) for layer, count in zip(layers, rows, strict=True)]


def _put(linear: torch.nn.Module, adapter: LinearAdapter) -> None:
    """Adds the adapter's output to that of `linear`, which returns it with a bias."""
    setattr(linear, ADAPTER, adapter)

    def add(_, arguments: tuple, output: tuple) -> tuple:
        return (output[0] + adapter(arguments[0]), *output[1:]) if adapter.is_on else output

    linear.register_forward_hook(add)


def _want_gradient(_, arguments: tuple, embedded: torch.Tensor) -> torch.Tensor:
    return embedded.requires_grad_() if torch.is_grad_enabled() else embedded


@contextmanager
def switched_off(chunks: Sequence[GPTModel]) -> Iterator[None]:
    """A scope in which the model is its base."""
    found = adapters(chunks)
    for adapter in found:
        adapter.is_on = False
    try:
        yield
    finally:
        for adapter in found:
            adapter.is_on = True


class Merge:
    """`merge(parameter)`: a weight as it is exported, this rank's part, with its adapter's product in it."""

    def __init__(self, chunks: Sequence[GPTModel]):
        pairs = ((m, getattr(m, ADAPTER, None)) for chunk in chunks for m in chunk.modules())
        self._of = {id(module.weight): adapter for module, adapter in pairs if adapter is not None}

    def __call__(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        adapter = self._of.get(id(parameter))
        weight = parameter.detach()
        return weight if adapter is None else lora.merged(weight, adapter.delta())

"""Logits of a model that need not fit into memory: a module's weights come before its forward and go after it."""

import re
from collections.abc import Callable

import torch
from megatron.core.models.gpt import GPTModel
from transformers import PreTrainedModel

from gcpo_mcore.base import platform

Read = Callable[[str], torch.Tensor]


@torch.no_grad()
def megatron_logits(model: GPTModel, read: Read, tokens: torch.Tensor) -> torch.Tensor:
    """[b, s, vocabulary] fp32; `model` on the meta device in fp32, `read` gives Megatron parameters, tokens [b, s]."""
    modules = [
        "embedding",
        *(f"decoder.layers.{i}" for i in range(len(model.decoder.layers))),
        "decoder.final_layernorm",
    ]
    keep = ()
    if model.share_embeddings_and_output_weights:
        keep = ("embedding",)  # the head borrows its weight
    else:
        modules.append("output_layer")
    handles = [h for name in modules for h in _stream(model, name, read, name in keep)]
    positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    try:
        with platform.megatron():
            return model(tokens, positions, attention_mask=None).float()
    finally:
        for handle in handles:
            handle.remove()
        model.to_empty(device="meta")


@torch.no_grad()
def transformers_logits(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """[b, s, vocabulary] fp32 of a model that transformers loaded; its weights are in fp32 while a module runs."""
    layers = [name for name, _ in model.named_modules() if re.fullmatch(r"model\.layers\.\d+", name)]
    for module in ("model.embed_tokens", *layers, "model.norm", "lm_head"):
        _widen(model.get_submodule(module))
    model.get_submodule("model.rotary_emb").to(tokens.device)
    return model(tokens, use_cache=False).logits.float()


def _widen(module: torch.nn.Module) -> None:
    """Adds hooks that put the module on the device in fp32 before its forward, and what it was in its place again."""
    kept: list[torch.Tensor] = []

    def widen(*_) -> None:
        kept.extend(parameter.data for parameter in module.parameters())
        module.to(platform.device(), torch.float32)

    def restore(*_) -> None:
        for parameter, data in zip(module.parameters(), kept, strict=True):
            parameter.data = data
        kept.clear()

    module.register_forward_pre_hook(widen)
    module.register_forward_hook(restore)


def _stream(model: torch.nn.Module, path: str, read: Read, keep: bool = False) -> list:
    """Adds hooks that fill the module at `path` before its forward and, unless `keep`, empty it afterwards."""
    module = model.get_submodule(path)

    def fill(*_) -> None:
        module.to_empty(device=platform.device())
        for name, parameter in module.named_parameters():
            parameter.copy_(read(f"{path}.{name}"))

    def empty(*_) -> None:
        module.to_empty(device="meta")

    handles = [module.register_forward_pre_hook(fill)]
    return handles if keep else [*handles, module.register_forward_hook(empty)]

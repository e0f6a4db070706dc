"""Logits of a model that need not fit into memory: a module's weights come before its forward and go after it."""

from collections.abc import Callable
from pathlib import Path

import torch
from megatron.core.models.gpt import GPTModel

from gcpo_mcore.base import platform
from gcpo_mcore.hf.tensors import tensors_on_disk

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
    handles = [h for name in modules for h in _stream(model, name, read, _parameters, name in keep)]
    positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    try:
        with platform.megatron():
            return model(tokens, positions, attention_mask=None).float()
    finally:
        for handle in handles:
            handle.remove()
        model.to_empty(device="meta")


@torch.no_grad()
def transformers_logits(folder: Path, read: Read, tokens: torch.Tensor) -> torch.Tensor:
    """[b, s, vocabulary] fp32 by transformers' model of `folder`'s config; `read` gives Hugging Face tensors."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # computed, not read
    names = {"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {}
    layers = [f"model.layers.{i}" for i in range(config.num_hidden_layers)]
    for module in ("model.embed_tokens", *layers, "model.norm", "lm_head"):
        _stream(model, module, lambda name: read(names.get(name, name)), tensors_on_disk)
    return model(tokens, use_cache=False).logits.float()


def _parameters(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.named_parameters())


def _stream(model: torch.nn.Module, path: str, read: Read, tensors: Callable, keep: bool = False) -> list:
    """Adds hooks that fill the module at `path` before its forward and, unless `keep`, empty it afterwards.

    tensors: the tensors of a module by the names that `read` knows, without the module's own.
    """
    module = model.get_submodule(path)

    def fill(*_) -> None:
        module.to_empty(device=platform.device())
        for name, tensor in tensors(module).items():
            tensor.copy_(read(f"{path}.{name}"))

    def empty(*_) -> None:
        module.to_empty(device="meta")

    handles = [module.register_forward_pre_hook(fill)]
    return handles if keep else [*handles, module.register_forward_hook(empty)]

"""Folders in which the peft library keeps a LoRA adapter: adapter_config.json and adapter_model.safetensors.

Every adapted layer has its own lora_A and lora_B there, an expert's too; peft joins them where transformers has fused
its layers. Read is what the actor carries: plain LoRA of one rank; the rest is refused by name.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf.files import give_modes_of_umask
from gcpo_mcore.hf.tensors import check_finite

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What changes the function, and the value with which it does not.
_PLAIN = {
    "peft_type": "LORA", "use_dora": False, "use_qalora": False, "bias": "none", "lora_bias": False,
    "fan_in_fan_out": False, "modules_to_save": None, "layer_replication": None, "rank_pattern": {},
    "alpha_pattern": {}, "target_parameters": None, "trainable_token_indices": None, "alora_invocation_tokens": None,
    "megatron_config": None,
}  # fmt: skip


class LoraFactors(NamedTuple):
    """An adapter: (layer by its Hugging Face name, 'A' or 'B', whole tensor) of each factor, and what scales them."""

    factors: Iterable[tuple[str, str, torch.Tensor]]
    rank: int
    alpha: float
    is_rank_stabilised: bool


def tensor_name(layer: str, kind: str) -> str:
    """How peft names A or B of a layer."""
    return f"base_model.model.{layer}.lora_{kind}.weight"


class PeftFolder:
    """An adapter's folder: its `rank`, `alpha`, whether it `is_rank_stabilised`, its `layers` by Hugging Face name.

    UserError, naming file and key, for a folder that is none, or has what is not carried.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        raw = _read_config(self.folder / CONFIG)
        for key, plain in _PLAIN.items():
            if raw.get(key) not in (plain, None, [], {}) or (key == "peft_type" and raw.get(key) != plain):
                raise UserError(f"{self.folder / CONFIG}: {key} {raw.get(key)} is not carried; known: {plain}")
        self.rank, self.alpha = raw["r"], raw["lora_alpha"]
        self.is_rank_stabilised = bool(raw.get("use_rslora", False))
        self._file = self.folder / WEIGHTS
        try:
            with safe_open(self._file, "pt") as file:
                self._shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except Exception as error:  # safetensors raises its own, undocumented types
            raise UserError(f"{self._file}: cannot be read as safetensors ({error})") from None
        self.layers = {self._layer(name) for name in self._shapes}

    def _layer(self, name: str) -> str:
        layer = name.removeprefix("base_model.model.")
        for kind in "AB":
            if (short := layer.removesuffix(f".lora_{kind}.weight")) != layer:
                return short
        raise UserError(f"{self._file}: tensor {name} is not carried; known: lora_A and lora_B of linear layers")

    def factor(self, layer: str, kind: str) -> torch.Tensor:
        """A [r, in] or B [out, r] of a layer. UserError if it is missing or not finite."""
        name = tensor_name(layer, kind)
        if name not in self._shapes:
            raise UserError(f"{self._file}: tensor {name} is missing")
        with safe_open(self._file, "pt") as file:
            tensor = file.get_tensor(name)
        check_finite(str(self._file), name, tensor)
        return tensor


def _read_config(path: Path) -> dict[str, Any]:
    try:
        raw = dict(json.loads(path.read_text()))
        raw |= {"r": int(raw["r"]), "lora_alpha": float(raw["lora_alpha"])}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; a PEFT folder has one") from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not a readable adapter configuration ({type(error).__name__}: {error})") from None
    return raw


def write_peft(folder: Path, adapter: LoraFactors, base: str) -> None:
    """Writes `adapter` into `folder`, which exists. base: the model's name or path, for whoever loads it. UserError for
    a value that is not finite. Holds the adapter."""
    tensors = {}
    for layer, kind, tensor in adapter.factors:
        name = tensor_name(layer, kind)
        check_finite(str(folder), name, tensor)
        tensors[name] = tensor.cpu().contiguous().clone()
    layers = sorted({name.split(".")[-3] for name in tensors})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "inference_mode": True,
        "r": adapter.rank, "lora_alpha": adapter.alpha, "lora_dropout": 0.0, "use_rslora": adapter.is_rank_stabilised,
        "bias": "none", "target_modules": layers,
    }  # fmt: skip
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    give_modes_of_umask(folder)

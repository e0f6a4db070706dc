"""The gate of every conversion: Megatron's weights against what transformers itself makes of the Hugging Face folder.

transformers reads the folder with `AutoModelForCausalLM.from_pretrained`: which files count, what is tied, what is left
out is its word and not that of our reader. Then every tensor has to be the same to the bit, and the logits of some
tokens have to agree, Megatron's layers run on ours and transformers' on theirs.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from megatron.core.models.gpt import GPTModel
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from gcpo_mcore.base import platform
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.convert.logits import Read, megatron_logits, transformers_logits
from gcpo_mcore.convert.shards import empty_model, hf_tensors
from gcpo_mcore.hf.architecture import Architecture
from gcpo_mcore.hf.tensors import tensors_on_disk

TOLERANCE = 1e-4  # of logits in fp32, times the largest logit if that is above 1
TOKENS = (4, 16)  # rows, tokens of each


def compare(arch: Architecture, megatron: Read, folder: Path, dtype: torch.dtype, named: Path) -> float:
    """The largest logit difference between the weights that `megatron` reads and `folder` as transformers loads it.

    megatron: a reader of Megatron parameters, rounded to `dtype`. named: what the message calls the folder. Holds the
    model in `dtype`, mapped from its files where they are of that type, and a layer in fp32. UserError, naming the
    tensor, if transformers does not read the folder, if a tensor differs, or logits by more than `TOLERANCE`.
    """
    theirs = _load(folder, dtype, named)
    _compare_tensors(empty_model(arch, dtype), arch, megatron, tensors_on_disk(theirs), named)
    tokens = torch.randint(arch.vocabulary, TOKENS, generator=torch.Generator().manual_seed(0)).to(platform.device())
    mine = megatron_logits(empty_model(arch, torch.float32), megatron, tokens)[..., : arch.vocabulary]
    logits = transformers_logits(theirs, tokens)
    difference, allowed = float((mine - logits).abs().max()), TOLERANCE * max(1.0, float(logits.abs().max()))
    if not difference <= allowed:
        raise UserError(
            f"{named}: the logits of checkpoint and folder differ by {difference:.1e}, more than {allowed:.1e}"
        )
    return difference


def _compare_tensors(
    model: GPTModel, arch: Architecture, megatron: Read, theirs: dict[str, torch.Tensor], named: Path
) -> None:
    for name, tensor in hf_tensors(model, arch, megatron):
        if name not in theirs or not torch.equal(theirs.pop(name), tensor.cpu()):
            raise UserError(f"{named}: {name} of the checkpoint is not what transformers loads from the folder")
    for name in theirs:
        raise UserError(f"{named}: transformers loads {name} from the folder, the checkpoint does not have it")


def _load(folder: Path, dtype: torch.dtype, named: Path) -> PreTrainedModel:
    """The folder's model by transformers, on the CPU. UserError if it does not read it, or not all of its weights."""
    with _quiet():
        try:
            model, info = _from_pretrained(folder, dtype)
        except Exception as error:  # of its many, each with a type of its own
            raise UserError(
                f"{named}: transformers does not read the folder ({' '.join(str(error).split())})"
            ) from error
    for kind in ("missing_keys", "mismatched_keys"):
        if names := sorted(map(str, info[kind])):
            raise UserError(f"{named}: transformers finds {names[0]} among the {kind.replace('_', ' ')}")
    return model.eval()


def _from_pretrained(folder: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, dict[str, Any]]:
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=dtype, local_files_only=True, output_loading_info=True, trust_remote_code=False
    )
    return loaded


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A scope without transformers' progress bars, and without its report of what it leaves out."""
    shows, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if shows:
            transformers_logging.enable_progress_bar()

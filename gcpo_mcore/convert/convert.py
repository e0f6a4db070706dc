"""Checkpoint <-> Hugging Face folder, in one process and without ever holding the model.

Both directions end in the same gate (gate.py): what transformers loads from the folder is what the checkpoint holds,
an adapter merged into its base. Only then does the result get its name. `checkpoint_to_hf` is the one way of every
export: the command's, a run's own last one and those in the background.
"""

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel

from gcpo_mcore.actor import hf_mapping
from gcpo_mcore.actor.config import ModelConfig
from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.base import platform
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.files import make_folder, named_when_good
from gcpo_mcore.convert.adapter import AdapterShards, MergedWeights, has_adapter
from gcpo_mcore.convert.gate import compare
from gcpo_mcore.convert.shards import (
    ONE_LAYOUT,
    Read,
    ShardReader,
    empty_model,
    hf_tensors,
    megatron_reader,
    write_shards,
)
from gcpo_mcore.hf.architecture import Architecture, read_architecture
from gcpo_mcore.hf.files import copy_model_files
from gcpo_mcore.hf.folder import SHARD_BYTES, write_hf
from gcpo_mcore.hf.hub import local_folder
from gcpo_mcore.hf.peft import LoraFactors, write_peft
from gcpo_mcore.run.folder import RunFolder
from gcpo_mcore.run.setup import process_group

DEADLINE_S = 1800


@dataclass(frozen=True)
class ExportSettings:
    """How an export is written. dtype: of the weights, None: the checkpoint's; is_gated: whether it is compared with
    what transformers loads; replaces: whether a folder that is there gives way. base: the folder of an adapter's base,
    None: where the run had it."""

    dtype: str | None = None
    shard_bytes: int = SHARD_BYTES
    is_gated: bool = True
    replaces: bool = False
    base: str | None = None


def checkpoint_to_hf(folder: RunFolder, step: int, out: Path, settings: ExportSettings) -> float | None:
    """Writes `out` from the checkpoint of `step`; returns the largest logit difference (None: not gated).

    UserError, and no `out` or the old one, for a value that is not finite, a place that cannot be written, and if the
    gate says no. In a process group of its own, of one.
    """
    checkpoint, model_files = folder.folder(step), folder.path / "model"
    own, path = _own_model(folder)
    rounded = getattr(torch, settings.dtype or own)
    arch = read_architecture(str(model_files))
    make_folder(out.parent)
    with _alone(), named_when_good(out, settings.replaces) as unchecked:
        model = empty_model(arch, getattr(torch, own))
        source = _weights(checkpoint / "shards", model, arch, getattr(torch, own), settings.base or path)
        weights = ((name, tensor.to(rounded)) for name, tensor in hf_tensors(model, arch, source))
        write_hf(weights, model_files, unchecked, settings.shard_bytes)
        if settings.is_gated:
            return compare(arch, lambda name: source(name).to(rounded), unchecked, rounded, checkpoint)


def hf_to_checkpoint(hf_folder: Path, dtype: str, out: Path, is_gated: bool = True) -> float | None:
    """Writes `out`, a run folder whose only checkpoint, step 0, has the folder's weights and no optimizer state.

    Returns the largest logit difference, as `checkpoint_to_hf`; errors likewise, and for a folder whose tensors are
    not the architecture's.
    """
    arch = read_architecture(str(hf_folder))
    rounded = getattr(torch, dtype)
    make_folder(out.parent)
    with _alone(), named_when_good(out) as unchecked:
        model = empty_model(arch, rounded)
        weights = hf_mapping.HfWeights(str(hf_folder), arch)
        folder = RunFolder(unchecked)
        folder.write_config({"model": {"path": str(hf_folder), "dtype": dtype}})
        copy_model_files(hf_folder, unchecked / "model")
        folder.begin_checkpoint(0, {"step": 0, "version": 0})
        shards = folder.temporary(0) / "shards"
        shards.mkdir()
        sums = write_shards(shards, model, megatron_reader(model, arch, weights, rounded))
        folder.finish_checkpoint(0, arch, {f"shards/{name}": each for name, each in sums.items()})
        if is_gated:
            return compare(arch, ShardReader(folder.folder(0) / "shards", model), hf_folder, rounded, out)


def _own_model(folder: RunFolder) -> tuple[str, str]:
    """model.dtype and model.path of a run's config.yaml. UserError if it does not say them."""
    model = folder.read_config().get("model")
    found = model if isinstance(model, dict) else {}
    dtype, path = found.get("dtype"), found.get("path")
    known = get_args(ModelConfig.model_fields["dtype"].annotation)
    if not isinstance(dtype, str) or dtype not in known:
        raise UserError(f"{folder.path / 'config.yaml'}: model.dtype={dtype} is none of {', '.join(known)}")
    return dtype, str(path)


def checkpoint_to_peft(folder: RunFolder, step: int, out: Path, base: str | None) -> None:
    """Writes `out`, the adapter that the checkpoint of `step` holds, as peft loads it; `base`: what it names as the
    model, None: what the run did. UserError if it holds none."""
    shards = folder.folder(step) / "shards"
    if not has_adapter(shards):
        raise UserError(f"{shards.parent} is of a run with model/adapter=none: it holds no adapter")
    adapter = AdapterShards(shards)
    make_folder(out.parent)
    with named_when_good(out) as unchecked:
        unchecked.mkdir()
        model = base or _own_model(folder)[1]
        form = adapter.rank, adapter.alpha, adapter.is_rank_stabilised
        write_peft(unchecked, LoraFactors(adapter.factors(), *form), base=model)


def _weights(shards: Path, model: GPTModel, arch: Architecture, dtype: torch.dtype, base: str) -> Read:
    """A reader of the Megatron parameters that the checkpoint stands for; `base` is read where it holds an adapter."""
    if not has_adapter(shards):
        return ShardReader(shards, model)
    adapter, weights = AdapterShards(shards), hf_mapping.HfWeights(_base_folder(base), arch)
    adapter.check_base(weights)
    return megatron_reader(model, arch, MergedWeights(adapter, weights, dtype), dtype)


def _base_folder(base: str) -> str:
    folder = local_folder(base)
    if not Path(folder).is_dir():
        raise UserError(f"{base}, the base of the checkpoint's adapter, is not there: --base FOLDER says where it is")
    return folder


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """A scope for one process, in which megatron-core has a layout of one rank; whatever it had before is gone."""
    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()
    gc.collect()  # a run's model has circles
    platform.free_cached_memory()
    with process_group(threads=None, deadline_s=DEADLINE_S, is_alone=True):
        start_parallel(ONE_LAYOUT, seed=0)
        try:
            yield
        finally:
            parallel_state.destroy_model_parallel()

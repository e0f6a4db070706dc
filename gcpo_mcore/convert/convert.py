"""Checkpoint <-> Hugging Face folder, in one process and without ever holding the model.

Both directions end in the same gate (gate.py): what transformers loads from the folder is what the checkpoint holds.
Only then does the result get its name. `checkpoint_to_hf` is the one way of every export: the command's, a run's own
last one and those in the background.
"""

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from megatron.core import parallel_state
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gcpo_mcore.actor import hf_mapping
from gcpo_mcore.actor.config import ModelConfig
from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.base import platform
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.files import make_folder, named_when_good
from gcpo_mcore.convert.gate import compare
from gcpo_mcore.convert.shards import ONE_LAYOUT, ShardReader, empty_model, hf_tensors, megatron_reader, write_shards
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.hf.files import copy_model_files
from gcpo_mcore.hf.folder import SHARD_BYTES, write_hf
from gcpo_mcore.run.folder import RunFolder
from gcpo_mcore.run.setup import process_group

DEADLINE_S = 1800


@dataclass(frozen=True)
class ExportSettings:
    """How an export is written. dtype: of the weights, None: the checkpoint's; is_gated: whether it is compared with
    what transformers loads; replaces: whether a folder that is there gives way."""

    dtype: str | None = None
    shard_bytes: int = SHARD_BYTES
    is_gated: bool = True
    replaces: bool = False


def checkpoint_to_hf(folder: RunFolder, step: int, out: Path, settings: ExportSettings) -> float | None:
    """Writes `out` from the checkpoint of `step`; returns the largest logit difference (None: not gated).

    UserError, and no `out` or the old one, for a value that is not finite, a place that cannot be written, and if the
    gate says no. In a process group of its own, of one.
    """
    checkpoint, model_files = folder.folder(step), folder.path / "model"
    own = _own_dtype(folder.path / "config.yaml")
    rounded = getattr(torch, settings.dtype or own)
    arch = read_architecture(str(model_files))
    make_folder(out.parent)
    with _alone(), named_when_good(out, settings.replaces) as unchecked:
        model = empty_model(arch, getattr(torch, own))
        source = ShardReader(checkpoint / "shards", model)
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


def _own_dtype(config: Path) -> str:
    """model.dtype of a run folder's config.yaml. UserError if it does not say one."""
    try:
        found = OmegaConf.select(OmegaConf.create(OmegaConf.load(config)), "model.dtype")
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{config} cannot be read ({type(error).__name__}: {reason})") from None
    known = get_args(ModelConfig.model_fields["dtype"].annotation)
    if found not in known:
        raise UserError(f"{config}: model.dtype={found} is none of {', '.join(known)}")
    return found


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

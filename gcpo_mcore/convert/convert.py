"""Checkpoint <-> Hugging Face folder, in one process and without ever holding the model.

Both directions end in the same gate: shapes and names are those of the architecture, and the logits of the written
folder, run by transformers, are the checkpoint's, run by Megatron. Only then does the result get its name.
"""

import json
from pathlib import Path

import torch

from gcpo_mcore.actor import hf_mapping
from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.base import platform
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.files import copy_model_files, named_when_good
from gcpo_mcore.convert.logits import megatron_logits, transformers_logits
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
from gcpo_mcore.hf.folder import write_hf
from gcpo_mcore.run.folder import RunFolder

TOLERANCE = 1e-4  # of logits in fp32, times the largest logit if that is above 1


def checkpoint_to_hf(
    checkpoint: Path, model_files: Path, dtype: str, out: Path, out_dtype: str, shard_bytes: int
) -> float:
    """Writes `out` and returns the largest logit difference to the checkpoint on 64 random tokens.

    model_files: config and tokenizer of the run's model. dtype: of the checkpoint's weights. UserError, and no `out`,
    if the difference is above `TOLERANCE`. Runs in a process group of one.
    """
    arch = read_architecture(str(model_files))
    start_parallel(ONE_LAYOUT, seed=0)
    model = empty_model(arch, getattr(torch, dtype))
    source, rounded = ShardReader(checkpoint / "shards", model), getattr(torch, out_dtype)
    with named_when_good(out) as unchecked:
        weights = ((name, tensor.to(rounded)) for name, tensor in hf_tensors(model, arch, source))
        write_hf(weights, model_files, unchecked, is_writer=True, shard_bytes=shard_bytes)
        _write_dtype(unchecked / "config.json", out_dtype)
        return _compare(arch, lambda name: source(name).to(rounded), unchecked, checkpoint, rounded)


def hf_to_checkpoint(hf_folder: Path, dtype: str, out: Path) -> float:
    """Writes `out`, a run folder whose only checkpoint, step 0, has the folder's weights and no optimizer state.

    Returns the largest logit difference, as `checkpoint_to_hf`; errors likewise, and for a folder whose tensors are
    not the architecture's. Runs in a process group of one.
    """
    arch = read_architecture(str(hf_folder))
    start_parallel(ONE_LAYOUT, seed=0)
    rounded = getattr(torch, dtype)
    model = empty_model(arch, rounded)
    weights = hf_mapping.HfWeights(str(hf_folder), arch)
    for name, shape in ((n, t.shape) for n, t in hf_tensors(model, arch, dict(model.named_parameters()).__getitem__)):
        if weights.shape(name) != list(shape):
            raise UserError(f"{hf_folder}: {name} has shape {weights.shape(name)}, the config says {list(shape)}")
    with named_when_good(out) as unchecked:
        folder = RunFolder(unchecked)
        folder.write_config({"model": {"path": str(hf_folder), "dtype": dtype}})
        copy_model_files(hf_folder, unchecked / "model")
        folder.begin_checkpoint(0, {"step": 0, "version": 0})
        shards = folder.temporary(0) / "shards"
        shards.mkdir()
        sums = write_shards(shards, model, megatron_reader(model, arch, weights, rounded))
        folder.finish_checkpoint(0, arch, {f"shards/{name}": each for name, each in sums.items()})
        written = ShardReader(folder.folder(0) / "shards", model)
        return _compare(arch, written, hf_folder, out, rounded)


def _compare(
    arch: Architecture, megatron: Read, hf_folder: Path, named: Path, rounded: torch.dtype | None = None
) -> float:
    """Largest absolute logit difference between the weights that `megatron` reads and the folder's.

    Both run in fp32, so that only wrong weights or wrong layers can differ. rounded: what to round the folder's to.
    """
    weights = hf_mapping.HfWeights(str(hf_folder), arch)  # refuses missing and unknown tensors
    tokens = torch.randint(arch.vocabulary, (4, 16), generator=torch.Generator().manual_seed(0)).to(platform.device())
    mine = megatron_logits(empty_model(arch, torch.float32), megatron, tokens)[..., : arch.vocabulary]
    theirs = transformers_logits(
        hf_folder, lambda name: weights(name).to(rounded) if rounded else weights(name), tokens
    )
    difference, allowed = float((mine - theirs).abs().max()), TOLERANCE * max(1.0, float(theirs.abs().max()))
    if not difference <= allowed:
        raise UserError(
            f"{named}: the logits of checkpoint and folder differ by {difference:.1e}, more than {allowed:.1e}"
        )
    return difference


def _write_dtype(config: Path, dtype: str) -> None:
    raw = json.loads(config.read_text())
    key = "torch_dtype" if "torch_dtype" in raw else "dtype"
    if raw.get(key) != dtype:
        config.write_text(json.dumps({**raw, key: dtype}, indent=2) + "\n")

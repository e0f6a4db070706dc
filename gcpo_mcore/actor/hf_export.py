"""Writes an actor's weights as a Hugging Face folder that plain transformers loads."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file

from gcpo_mcore.files import copy_model_files

SHARD_BYTES = 2 * 2**30


def write_hf(
    weights: Iterable[tuple[str, torch.Tensor]],
    model_files: Path,
    out: Path,
    is_writer: bool,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Streams `weights` into safetensors files of at most `shard_bytes` (or one tensor), beside `model_files`.

    A collective: every rank draws the stream to its end, the writer holds one shard of it. `out` appears whole.
    """
    if not is_writer:
        for _ in weights:
            pass
        return
    temporary = out.with_name(f"tmp_{out.name}")
    copy_model_files(model_files, temporary)
    shards: list[list[str]] = []
    held: dict[str, torch.Tensor] = {}
    total = size = 0

    def flush() -> None:
        nonlocal size
        if held:
            save_file(held, temporary / f"shard_{len(shards)}.safetensors", metadata={"format": "pt"})
            shards.append(list(held))
            held.clear()
            size = 0

    for name, tensor in weights:
        if size + tensor.nbytes > shard_bytes:
            flush()
        held[name] = tensor.cpu().contiguous().clone()
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    _name_shards(temporary, shards, total)
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)


def _name_shards(folder: Path, shards: list[list[str]], total: int) -> None:
    if len(shards) == 1:
        (folder / "shard_0.safetensors").rename(folder / "model.safetensors")
        return
    files = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for i, name in enumerate(files):
        (folder / f"shard_{i}.safetensors").rename(folder / name)
    weight_map = {tensor: file for file, names in zip(files, shards, strict=True) for tensor in names}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))

"""Writes weights as a Hugging Face folder that plain transformers loads: the one way of every export."""

import functools
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf.files import copy_model_files, describe_weights, give_modes_of_umask
from gcpo_mcore.hf.tensors import check_finite

SHARD_BYTES = 2 * 2**30


class HfFolder:
    """`out` while it is written, shard by shard, beside `model_files`; it appears whole, by `finish`.

    Its config.json has the type of the weights that are written. UserError for a disk that is full.
    """

    def __init__(self, model_files: Path, out: Path):
        self.out, self.temporary = out, out.with_name(f"tmp_{out.name}")
        copy_model_files(model_files, self.temporary)
        self.shards: list[list[str]] = []
        self.bytes = 0
        self.dtypes: set[torch.dtype] = set()

    def write(self, tensors: dict[str, torch.Tensor]) -> None:
        """Writes a shard of contiguous tensors on the CPU, none of which shares memory with another."""
        self.bytes += sum(tensor.nbytes for tensor in tensors.values())
        self.dtypes |= {tensor.dtype for tensor in tensors.values()}
        try:
            save_file(tensors, self.temporary / f"shard_{len(self.shards)}.safetensors", metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk, for one
            raise UserError(f"{self.out}: cannot be written ({' '.join(str(error).split())})") from error
        self.shards.append(list(tensors))

    def finish(self) -> Path:
        """Gives the shards their names and index, and puts the folder in the place of `out`."""
        self._name_shards()
        widest = functools.reduce(torch.promote_types, self.dtypes)
        describe_weights(self.temporary / "config.json", str(widest).removeprefix("torch."))
        give_modes_of_umask(self.temporary)
        shutil.rmtree(self.out, ignore_errors=True)
        self.temporary.rename(self.out)
        return self.out

    def _name_shards(self) -> None:
        folder, count = self.temporary, len(self.shards)
        if count == 1:
            (folder / "shard_0.safetensors").rename(folder / "model.safetensors")
            return
        files = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
        for i, name in enumerate(files):
            (folder / f"shard_{i}.safetensors").rename(folder / name)
        weight_map = {tensor: file for file, names in zip(files, self.shards, strict=True) for tensor in names}
        index = {"metadata": {"total_size": self.bytes}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def write_hf(
    weights: Iterable[tuple[str, torch.Tensor]], model_files: Path, out: Path, shard_bytes: int = SHARD_BYTES
) -> None:
    """Streams `weights` into safetensors files of at most `shard_bytes` (or one tensor), beside `model_files`.

    It holds one shard. `out` appears whole. UserError for a value that is not finite.
    """
    folder = HfFolder(model_files, out)
    held: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in weights:
        check_finite(str(out), name, tensor)
        if held and size + tensor.nbytes > shard_bytes:
            folder.write(held)
            held, size = {}, 0
        held[name] = tensor.cpu().contiguous().clone()
        size += tensor.nbytes
    folder.write(held)
    folder.finish()

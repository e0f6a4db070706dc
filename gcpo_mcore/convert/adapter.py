"""A checkpoint that holds an adapter: its factors, and the weights that it makes of its base, one tensor at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from gcpo_mcore.actor.adapter_places import key
from gcpo_mcore.actor.hf_mapping import HfWeights
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf import lora
from gcpo_mcore.shards.piece import Piece
from gcpo_mcore.shards.reading import Reading, read_common, read_index


class AdapterShards:
    """The adapter in `shards`, of any layout: its rank, alpha and layers, and `factor(layer, 'A' or 'B')`."""

    def __init__(self, shards: Path):
        described: dict[str, Any] = read_common(shards)["adapter"]
        self.rank, self.alpha, self.is_rank_stabilised = described["rank"], described["alpha"], described["rslora"]
        self.layers: list[str] = described["layers"]
        self.base: str = described["base"]
        self._shards, self._index = shards, read_index(shards)

    def factor(self, layer: str, kind: str) -> torch.Tensor:
        """A [r, in] or B [out, r], whole. UserError if it is missing."""
        name = key(layer, kind)
        there = self._index.state_dict_metadata.get(name)
        if not isinstance(there, TensorStorageMetadata):
            raise UserError(f"{self._shards} has no {name}")
        whole = torch.empty(there.size, dtype=there.properties.dtype)
        Reading(self._shards, [Piece(name, tuple(there.size), (0,) * whole.ndim, whole)], self._index).fill()
        return whole

    def factors(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        """(layer, 'A' or 'B', values) of all of it."""
        for layer in self.layers:
            for kind in "AB":
                yield layer, kind, self.factor(layer, kind)

    def check_base(self, weights: HfWeights) -> None:
        """UserError if `weights` are not those that it was trained beside. Reads all of them."""
        if (found := weights.checksum()) != self.base:
            raise UserError(
                f"{self._shards.parent}: its adapter is of another base: one of weights with checksum {self.base}, "
                f"those of {weights.folder} have {found}"
            )


def has_adapter(shards: Path) -> bool:
    """Whether a checkpoint's shards are an adapter's."""
    return "adapter" in read_common(shards)


class MergedWeights:
    """`weights(name)`: the base's tensor of that Hugging Face name in `dtype`, with the adapter's product in it."""

    def __init__(self, adapter: AdapterShards, base: HfWeights, dtype: torch.dtype):
        self._adapter, self._base, self._dtype = adapter, base, dtype
        self._layers = set(adapter.layers)
        self._factor = lora.scale(adapter.rank, adapter.alpha, adapter.is_rank_stabilised)

    def __call__(self, name: str) -> torch.Tensor:
        weight, layer = self._base(name).to(self._dtype), name.removesuffix(".weight")
        if layer == name or layer not in self._layers:
            return weight
        a, b = (self._adapter.factor(layer, kind) for kind in "AB")
        return lora.merged(weight, lora.product(a, b, self._factor))

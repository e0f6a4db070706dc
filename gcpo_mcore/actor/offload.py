"""Moves the actor's memory from the device to the host while somebody else needs the device, and back.

What moves is storages: they are emptied and later filled again in place, so that every view into them (megatron-core
keeps many) stays what it was. Gradients are dropped, not copied: a backward pass starts by zeroing them.
"""

from collections.abc import Iterable
from typing import Literal

import torch

from gcpo_mcore.actor.stage import Stage
from gcpo_mcore.base import platform

Offload = Literal["none", "optimizer", "all"]


class Offloader:
    """Moves one actor. `what`: 'none', 'optimizer' (its state, fp32 main weights, gradients) or 'all' (weights too)."""

    def __init__(self, what: Offload, stage: Stage):
        self.what, self.stage = what, stage
        self._away: list[tuple[torch.UntypedStorage, torch.Tensor]] = []  # an empty storage, its bytes on the host
        self._dropped: list[tuple[torch.Tensor, int]] = []  # a gradient buffer, its bytes
        self._free: dict[int, list[torch.Tensor]] = {}  # host buffers by size: pinning is slow, so they are kept

    @property
    def is_away(self) -> bool:
        """Whether the device's copy is gone."""
        return bool(self._away or self._dropped)

    @torch.no_grad()
    def offload(self) -> None:
        """Empties the device's storages. Nothing happens if they are empty, or if `what` is 'none'."""
        if self.what == "none" or self.is_away:
            return
        for buffer in self.stage.gradient_buffers():
            storage = buffer.untyped_storage()
            self._dropped.append((buffer, storage.nbytes()))
            storage.resize_(0)
        for storage in self._kept():
            size = storage.nbytes()
            stack = self._free.setdefault(size, [])
            host = stack.pop() if stack else platform.host_buffer(size)
            host.copy_(_bytes(storage))
            self._away.append((storage, host))
            storage.resize_(0)
        platform.free_cached_memory()

    @torch.no_grad()
    def onload(self) -> None:
        """Fills the device's storages again. Nothing happens if they are full."""
        for storage, host in self._away:
            storage.resize_(len(host))
            _bytes(storage).copy_(host)
            self._free[len(host)].append(host)
        for buffer, size in self._dropped:
            buffer.untyped_storage().resize_(size)
            buffer.zero_()
        self._away, self._dropped = [], []

    def _kept(self) -> Iterable[torch.UntypedStorage]:
        """The storages whose values are needed again, each once. Of fp32 models the main weights are the model's."""
        weights, optimizers = self.stage.parameters(), self.stage.optimizer.chained_optimizers
        tensors = [
            value
            for inner in optimizers
            for state in inner.optimizer.state.values()
            for name, value in state.items()
            if name != "step"  # torch's AdamW keeps it on the host
        ]
        groups = [g for inner in optimizers for g in inner.optimizer.param_groups]
        tensors += [parameter for group in groups for parameter in group["params"]]
        moved = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in [*tensors, *weights]}
        if self.what == "optimizer":
            for weight in weights:
                moved.pop(weight.untyped_storage().data_ptr(), None)
        return moved.values()


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    """A storage as a flat tensor of its bytes."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)

"""Moves the actor's memory from the device to the host while somebody else needs the device, and back.

What moves is storages: they are emptied and later filled again in place, so that every view into them (megatron-core
keeps many) stays what it was. Gradients are dropped, not copied: a backward pass starts by zeroing them.
"""

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
        """Whether something of the device's copy is gone."""
        return bool(self._away or self._dropped)

    @torch.no_grad()
    def offload(self, keeps_weights: bool = False) -> None:
        """Empties the device's storages, but for those of the weights if it `keeps_weights`, and gives away what torch
        keeps of the device's memory. Of what is empty already nothing happens."""
        if self.what != "none":
            for buffer in self.stage.gradient_buffers():
                self._drop(buffer)
            weights = self._weights()
            stays = keeps_weights or self.what == "optimizer"
            for place, storage in (self._state() | weights).items():
                if not (stays and place in weights):
                    self._take_away(storage)
        platform.free_cached_memory()

    @torch.no_grad()
    def onload(self, only_weights: bool = False) -> None:
        """Fills the device's storages again, or only those of the weights. Of what is full nothing happens."""
        wanted = {storage._cdata for storage in self._weights().values()} if only_weights else None
        back = [entry for entry in self._away if wanted is None or entry[0]._cdata in wanted]
        self._away = [entry for entry in self._away if wanted is not None and entry[0]._cdata not in wanted]
        for storage, host in back:
            storage.resize_(len(host))
            _bytes(storage).copy_(host)
            self._free[len(host)].append(host)
        if not only_weights:
            for buffer, size in self._dropped:
                buffer.untyped_storage().resize_(size)
                buffer.zero_()
            self._dropped = []

    def _drop(self, buffer: torch.Tensor) -> None:
        storage = buffer.untyped_storage()
        if size := storage.nbytes():
            self._dropped.append((buffer, size))
            storage.resize_(0)

    def _take_away(self, storage: torch.UntypedStorage) -> None:
        if size := storage.nbytes():
            stack = self._free.setdefault(size, [])
            host = stack.pop() if stack else platform.host_buffer(size)
            host.copy_(_bytes(storage))
            self._away.append((storage, host))
            storage.resize_(0)

    def _weights(self) -> dict[int, torch.UntypedStorage]:
        """The storages of the weights, each once, by their identity: an empty one has no address."""
        storages = [parameter.untyped_storage() for parameter in self.stage.parameters()]
        return {storage._cdata: storage for storage in storages}

    def _state(self) -> dict[int, torch.UntypedStorage]:
        """As `_weights`, of what the optimizer needs. Of fp32 models the main weights are the model's."""
        optimizers = self.stage.optimizer.chained_optimizers
        tensors = [
            value
            for inner in optimizers
            for state in inner.optimizer.state.values()
            for name, value in state.items()
            if name != "step"  # torch's AdamW keeps it on the host
        ]
        groups = [g for inner in optimizers for g in inner.optimizer.param_groups]
        tensors += [parameter for group in groups for parameter in group["params"]]
        return {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    """A storage as a flat tensor of its bytes."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)

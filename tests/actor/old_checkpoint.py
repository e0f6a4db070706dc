"""A checkpoint as this project wrote them before it had a writer of its own: by megatron-core's dist_checkpointing.

    write_as_before(actor, folder)

The distributed optimizer's state was gathered whole on every rank ('fully_reshardable').
"""

import inspect
import multiprocessing.dummy
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.base import platform

SHARDING = {"distrib_optim_sharding_type": "fully_reshardable", "chained_optim_avoid_prefix": True}


def write_as_before(actor: Actor, folder: Path) -> None:
    """Writes `folder`/shards; `folder` exists. A collective over all ranks."""
    stage, shards = actor.stage(), folder / "shards"
    if dist.get_rank() == 0:
        shards.mkdir()
    dist.barrier()
    # Its writer forks, which is not safe in a process with gloo's threads.
    threads = SimpleNamespace(get_context=lambda method: multiprocessing.dummy)
    with platform.megatron(), warnings.catch_warnings(), mock.patch.object(filesystem_async, "mp", threads):
        warnings.simplefilter("ignore")
        for inner in stage.optimizer.chained_optimizers:
            if isinstance(inner, DistributedOptimizer):
                _keep_padding(inner)
        optimizer = stage.optimizer.sharded_state_dict(_of(stage.chunks), metadata=SHARDING)
        state = {"model": _of(stage.chunks), "optimizer": optimizer}
        has_choice = "async_strategy" in inspect.signature(dist_checkpointing.save).parameters  # 0.17 and later
        options = {"async_strategy": "mcore"} if has_choice else {}
        dist_checkpointing.save(state, str(shards), content_metadata=SHARDING, **options)


def _of(chunks) -> dict:
    """The weights' places; the optimizer finds its parameters by them, so it gets a dictionary of its own."""
    return {str(number): chunk.sharded_state_dict(prefix="") for number, chunk in enumerate(chunks)}


def _keep_padding(optimizer: DistributedOptimizer) -> None:
    """Repairs megatron-core 0.16, as the project did: a checkpoint's tensors are found in the gradient buffer by places
    that count the padding between its buckets, but the buffer is gathered without it.
    """
    original = optimizer.get_parameter_state_dp_zero

    def with_padding(*args, **kwargs):
        state: dict = original(*args, **kwargs)
        for number, buffer in enumerate(optimizer.buffers):
            for tensors in state[number].values():
                tensors |= {k: _padded(v, buffer) for k, v in tensors.items() if torch.is_tensor(v)}
        return state

    optimizer.get_parameter_state_dp_zero = with_padding


def _padded(flat: torch.Tensor, buffer) -> torch.Tensor:
    """[numel] a buffer's values with the padding between its buckets, from `flat` without it."""
    out = flat.new_zeros(buffer.numel)
    by_bucket = flat.split([bucket.numel_unpadded for bucket in buffer.buckets])
    for bucket, values in zip(buffer.buckets, by_bucket, strict=True):
        out[bucket.offset : bucket.offset + len(values)] = values
    return out

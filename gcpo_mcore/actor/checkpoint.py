"""The actor's state on disk, through megatron-core's dist_checkpointing: it loads at any layout.

FOLDER/shards/    model and optimizer, sharded
FOLDER/rank_*.pt  random-number states, one file per rank
"""

import random
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.models.gpt import GPTModel

from gcpo_mcore import platform
from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.optimizer_state import load_optimizer

# Stored by parameter, not by rank: the only form of the distributed optimizer that loads at another layout.
SHARDING = {"distrib_optim_sharding_type": "fully_reshardable", "chained_optim_avoid_prefix": True}


def save_actor(actor: Actor, folder: Path) -> None:
    """Writes the actor's state below `folder` (which exists). A collective over all ranks."""
    with platform.megatron(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shards = folder / "shards"
        if dist.get_rank() == 0:
            shards.mkdir()
        dist.barrier()
        dist_checkpointing.save(_sharded_state(actor), str(shards), content_metadata=SHARDING)
    states = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}
    if platform.HAS_CUDA:
        states["cuda"] = torch.cuda.get_rng_state()
    torch.save(states, folder / f"rank_{dist.get_rank():05d}.pt")


def load_weights(chunks: Sequence[GPTModel], folder: Path) -> None:
    """Only the weights of a checkpoint, into a stage's `chunks` at any layout. A collective over all ranks."""
    with platform.megatron(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _load_weights(chunks, folder / "shards")


def load_actor(actor: Actor, folder: Path) -> None:
    """Restores what `save_actor` wrote, whatever the layout it was written at. A collective over all ranks.

    Random-number states come back only if this rank existed then.
    """
    with platform.megatron(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _load_weights(actor.chunks, folder / "shards")
        load_optimizer(actor.optimizer, _sharded_chunks(actor.chunks), folder / "shards")
    states_file = folder / f"rank_{dist.get_rank():05d}.pt"
    if states_file.is_file():
        states = torch.load(states_file, weights_only=False)
        torch.set_rng_state(states["torch"])
        np.random.set_state(states["numpy"])
        random.setstate(states["python"])
        if platform.HAS_CUDA and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"])


def _sharded_state(actor: Actor) -> dict:
    # The optimizer finds its parameters by the model's entries, so it gets a dictionary of its own.
    optimizer = actor.optimizer.sharded_state_dict(_sharded_chunks(actor.chunks), metadata=SHARDING)
    return {"model": _sharded_chunks(actor.chunks), "optimizer": optimizer}


def _sharded_chunks(chunks: Sequence[GPTModel]) -> dict:
    return {str(number): chunk.sharded_state_dict(prefix="") for number, chunk in enumerate(chunks)}


def _load_weights(chunks: Sequence[GPTModel], shards: Path) -> None:
    state = dist_checkpointing.load({"model": _sharded_chunks(chunks)}, str(shards))["model"]
    for number, chunk in enumerate(chunks):
        chunk.load_state_dict(state[str(number)])

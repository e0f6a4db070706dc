"""The actor's state on disk, through megatron-core's dist_checkpointing: it loads at any layout. checkpoint_writer.py
writes it.

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

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.optimizer_state import load_optimizer
from gcpo_mcore.base import platform

# Stored by parameter, not by rank: the only form of the distributed optimizer that loads at another layout.
SHARDING = {"distrib_optim_sharding_type": "fully_reshardable", "chained_optim_avoid_prefix": True}


def random_states_file(folder: Path) -> Path:
    """Where this rank's random-number states lie in a checkpoint."""
    return folder / f"rank_{dist.get_rank():05d}.pt"


def load_weights(chunks: Sequence[GPTModel], folder: Path) -> None:
    """Only the weights of a checkpoint, into a stage's `chunks` at any layout. A collective over all ranks."""
    with platform.megatron(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _load_weights(chunks, folder / "shards")


def load_actor(actor: Actor, folder: Path) -> None:
    """Restores what a CheckpointWriter wrote, whatever the layout it was written at. A collective over all ranks.

    Random-number states come back only if this rank existed then.
    """
    with platform.megatron(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _load_weights(actor.chunks, folder / "shards")
        load_optimizer(actor.optimizer, sharded_chunks(actor.chunks), folder / "shards")
    states_file = random_states_file(folder)
    if states_file.is_file():
        states = torch.load(states_file, weights_only=False)
        torch.set_rng_state(states["torch"])
        np.random.set_state(states["numpy"])
        random.setstate(states["python"])
        if platform.HAS_CUDA and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"])


def sharded_chunks(chunks: Sequence[GPTModel]) -> dict:
    """megatron-core's description of the weights of a stage's chunks: which piece of which tensor each of them is."""
    return {str(number): chunk.sharded_state_dict(prefix="") for number, chunk in enumerate(chunks)}


def _load_weights(chunks: Sequence[GPTModel], shards: Path) -> None:
    state = dist_checkpointing.load({"model": sharded_chunks(chunks)}, str(shards))["model"]
    for number, chunk in enumerate(chunks):
        chunk.load_state_dict(state[str(number)])

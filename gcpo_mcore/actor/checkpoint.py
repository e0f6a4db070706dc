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
from megatron.core.models.gpt import GPTModel

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.optimizer_state import load_optimizer
from gcpo_mcore.actor.sharded import load_sharded, sharded_chunks
from gcpo_mcore.base import platform

# Stored by parameter, not by rank: the only form of the distributed optimizer that loads at another layout.
SHARDING = {"distrib_optim_sharding_type": "fully_reshardable", "chained_optim_avoid_prefix": True}


def random_states_file(folder: Path) -> Path:
    """The file of this rank's random-number states in a checkpoint."""
    return folder / f"rank_{dist.get_rank():05d}.pt"


def load_weights(chunks: Sequence[GPTModel], folder: Path) -> None:
    """Reads only the weights of a checkpoint, into a stage's `chunks` at any layout. A collective over all ranks."""
    with platform.megatron(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _load_weights(chunks, folder / "shards")


def load_actor(actor: Actor, folder: Path) -> None:
    """Restores what a CheckpointWriter wrote, whatever the layout it was written at. A collective over all ranks.

    Brings an offloaded actor back to the device. Random-number states come back only if this rank existed then.
    """
    actor.onload()
    stage = actor.stage()
    with platform.megatron(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _load_weights(stage.chunks, folder / "shards")
        load_optimizer(stage.optimizer, sharded_chunks(stage.chunks), folder / "shards")
    states_file = random_states_file(folder)
    if states_file.is_file():
        states = torch.load(states_file, weights_only=False)
        torch.set_rng_state(states["torch"])
        np.random.set_state(states["numpy"])
        random.setstate(states["python"])
        if platform.HAS_CUDA and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"])


def _load_weights(chunks: Sequence[GPTModel], shards: Path) -> None:
    state = load_sharded({"model": sharded_chunks(chunks)}, shards, is_whole=True)["model"]
    for number, chunk in enumerate(chunks):
        chunk.load_state_dict(state[str(number)])

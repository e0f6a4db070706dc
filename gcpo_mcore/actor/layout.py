"""Which rank does what: the parallel axes, checked against world size and model before anything is built."""

import os
from dataclasses import dataclass

from gcpo_mcore.actor.architecture import Architecture
from gcpo_mcore.actor.config import ParallelConfig
from gcpo_mcore.errors import UserError


@dataclass(frozen=True)
class Layout:
    """Sizes of the axes; world = data * tensor * pipeline. Ranks are ordered tensor fastest, pipeline slowest."""

    world: int
    tensor: int
    pipeline: int
    data: int


def check_layout(parallel: ParallelConfig, model: Architecture) -> Layout:
    """The layout of this launch. UserError, naming the key, if it does not fit the world size or the model."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    t, p = parallel.tensor, parallel.pipeline
    if world % (t * p):
        raise UserError(
            f"parallel.tensor={t} x parallel.pipeline={p} needs a multiple of {t * p} processes, got {world} "
            f"(torchrun --nproc-per-node)"
        )
    for name, size in (("heads", model.heads), ("kv_heads", model.kv_heads), ("intermediate", model.intermediate)):
        if size % t:
            raise UserError(f"parallel.tensor={t} does not divide the model's {name} ({size})")
    if model.layers % p:
        raise UserError(f"parallel.pipeline={p} does not divide the model's layers ({model.layers})")
    if parallel.sequence and t == 1:
        raise UserError("parallel.sequence=true needs parallel.tensor above 1")
    return Layout(world=world, tensor=t, pipeline=p, data=world // (t * p))

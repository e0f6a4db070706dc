"""Which rank does what: the parallel axes, checked against world size and model before anything is built."""

import os
from dataclasses import dataclass

from gcpo_mcore.actor.config import ParallelConfig
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf.architecture import Architecture


@dataclass(frozen=True)
class Layout:
    """Sizes of the axes; world = data * tensor * pipeline * context. Ranks are ordered tensor fastest, then context,
    data, pipeline.

    Experts have an axis of their own over the same ranks: `expert` neighbours within a stage, tensor ranks first,
    hold different experts. A stage holds `virtual_pipeline` chunks of layers: with 2 stages of 2 chunks, stage 0 has
    the first and the third quarter of the layers.
    """

    world: int
    tensor: int
    pipeline: int
    virtual_pipeline: int
    context: int
    data: int
    expert: int

    def data_rank(self, rank: int) -> int:
        """Which of the data-parallel ranks `rank` is: all that share it train on the same rows."""
        return rank // (self.tensor * self.context) % self.data


def check_layout(parallel: ParallelConfig, model: Architecture, processes: int | None = None) -> Layout:
    """The layout of `processes` (None: of this launch). UserError, naming the key, if it does not fit their number or
    the model."""
    world = processes or int(os.environ.get("WORLD_SIZE", "1"))
    t, p, c = parallel.tensor, parallel.pipeline, parallel.context
    if world % (t * p * c):
        raise UserError(
            f"parallel.tensor={t} x parallel.pipeline={p} x parallel.context={c} needs a multiple of "
            f"{t * p * c} processes, got {world} (torchrun --nproc-per-node)"
        )
    for name in ("heads",) if model.experts else ("heads", "intermediate"):
        if getattr(model, name) % t:
            raise UserError(f"parallel.tensor={t} does not divide the model's {name} ({getattr(model, name)})")
    if model.kv_heads % t and t % model.kv_heads:
        raise UserError(
            f"parallel.tensor={t} neither divides the model's kv_heads ({model.kv_heads}) nor is a multiple of them"
        )
    if model.layers % p:
        raise UserError(f"parallel.pipeline={p} does not divide the model's layers ({model.layers})")
    _check_chunks(parallel, model)
    if parallel.sequence and t == 1:
        raise UserError("parallel.sequence=true needs parallel.tensor above 1")
    _check_experts(parallel, model, ranks=world // p)
    return Layout(
        world=world,
        tensor=t,
        pipeline=p,
        virtual_pipeline=parallel.virtual_pipeline,
        context=c,
        data=world // (t * p * c),
        expert=parallel.expert,
    )


def _check_chunks(parallel: ParallelConfig, model: Architecture) -> None:
    p, v = parallel.pipeline, parallel.virtual_pipeline
    if v > 1 and p == 1:
        raise UserError(f"parallel.virtual_pipeline={v} needs parallel.pipeline above 1")
    if model.layers % (p * v):
        raise UserError(
            f"parallel.virtual_pipeline={v} x parallel.pipeline={p} does not divide the model's layers ({model.layers})"
        )


def _check_experts(parallel: ParallelConfig, model: Architecture, ranks: int) -> None:
    e = parallel.expert
    if e > 1 and not model.experts:
        raise UserError(f"parallel.expert={e}: the model ({model.family}) has no experts")
    if model.experts and model.experts % e:
        raise UserError(f"parallel.expert={e} does not divide the model's experts ({model.experts})")
    if ranks % e:
        raise UserError(f"parallel.expert={e} does not divide the processes of a pipeline stage ({ranks})")
    if model.experts and parallel.overlap:
        # An expert without tokens has no gradient, and megatron would wait for it.
        raise UserError("parallel.overlap=true does not go with a model with experts")
    # With one expert rank megatron would leave the experts' gradients unsummed over the tensor group, silently.
    if model.experts and parallel.tensor > 1 and not (parallel.sequence and e > 1):
        raise UserError(
            f"parallel.tensor={parallel.tensor}: a model with experts needs parallel.sequence=true and "
            "parallel.expert above 1 with it"
        )

"""The optimizer's state in a checkpoint, by parameter name: any layout and either optimizer reads what any wrote.

A state tensor has the name, shape and place of its weight. Of megatron-core's distributed optimizer every rank writes
and reads the span of each parameter that it steps, from and into its own memory; nothing is gathered.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import ChainedOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from megatron.core.optimizer.optimizer import MegatronOptimizer

from gcpo_mcore.actor.sharded import Sharded, is_first_replica, pieces, places, values
from gcpo_mcore.shards.piece import Piece

MOMENTS = ("exp_avg", "exp_avg_sq")
MAIN = "fp32_param"  # the fp32 weights that are stepped, where the model's own are of another dtype
# How older checkpoints name them whose 'common' has that key: megatron-core's distributed optimizer wrote those.
OLD_MAIN, OF_OLD_MAIN = "param", "param_state_sharding_type"


class _Place(NamedTuple):
    """Where the state of a model parameter lies: `main` is what `optimizer` steps, elements of the parameter from
    `start` on. is_shared: its other elements are on the other ranks of the data-parallel group."""

    optimizer: torch.optim.Optimizer
    main: torch.Tensor
    start: int
    is_shared: bool


class Stepped(NamedTuple):
    """A model parameter that this rank steps, wholly or a span of it: its place in the model, and its state's."""

    place: Sharded
    state: _Place

    @property
    def is_mine_to_write(self) -> bool:
        """Whether no other rank writes the same."""
        return is_first_replica(self.place, shares_data=self.state.is_shared)

    def weights(self) -> Iterator[Piece]:
        """The pieces of the model's own weights, of the elements that this rank steps."""
        flat = values(self.place).view(-1)
        yield from pieces(self.place, flat[self.state.start :][: self.state.main.numel()], self.state.start)

    def states(self, main_name: str = MAIN) -> Iterator[Piece]:
        """The pieces of both moments, and of the weights that are stepped if the model's are others."""
        of = {name: self.state.optimizer.state[self.state.main][name] for name in MOMENTS}
        if values(self.place).dtype is not torch.float32:
            of[main_name] = self.state.main.detach()
        for name, tensor in of.items():
            yield from pieces(self.place, tensor.view(-1), self.state.start, prefix=f"optimizer.state.{name}.")


def stepped_by(optimizer: ChainedOptimizer, chunks: Sequence[GPTModel]) -> list[Stepped]:
    """Those parameters of a stage's chunks that this rank steps. Runs inside `platform.megatron()`."""
    where = {parameter: place for inner in optimizer.chained_optimizers for parameter, place in _places(inner)}
    found = ((place, where.get(place.data)) for place in places(chunks) if place.data is not None)
    return [Stepped(place, state) for place, state in found if state is not None]


def common_state(optimizer: ChainedOptimizer) -> dict[str, Any]:
    """What of the optimizer's state is no tensor of a weight's shape: how many updates it has done."""
    return {"optimizer": {"step": _steps_done(optimizer)}}


def main_name(common: dict[str, Any]) -> str:
    """The checkpoint's name of the fp32 weights, by what `common_state` or megatron-core wrote into it."""
    return OLD_MAIN if any(_found(common, OF_OLD_MAIN)) else MAIN


def set_common_state(optimizer: ChainedOptimizer, common: dict[str, Any]) -> None:
    """Sets the updates done so far to what `common_state` or megatron-core wrote: the newest count of any form.

    torch's Adam counts in a tensor of each parameter; the fused ones of Transformer Engine and apex in a number of each
    group, which is not there before their first update.
    """
    step = max((float(step) for name in ("common_step", "step") for step in _found(common, name)), default=0.0)
    for inner in optimizer.chained_optimizers:
        if counts_in_groups(inner.optimizer):
            for group in inner.optimizer.param_groups:
                group["step"] = int(step)
            continue
        for state in inner.optimizer.state.values():
            state["step"].fill_(step)


def counts_in_groups(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an Adam counts its updates by group, as the fused ones do, and not by parameter, as torch's."""
    return not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW)


def _steps_done(optimizer: ChainedOptimizer) -> float:
    counts = [0.0]
    for inner in optimizer.chained_optimizers:
        holders = inner.optimizer.param_groups if counts_in_groups(inner.optimizer) else inner.optimizer.state.values()
        counts += [float(holder["step"]) for holder in holders if "step" in holder]
    return max(counts)


def _places(optimizer: MegatronOptimizer) -> Iterator[tuple[torch.Tensor, _Place]]:
    """(model parameter, its state's place) of all that this rank steps."""
    if isinstance(optimizer, DistributedOptimizer):
        yield from _sharded_places(optimizer)
        return
    halves = chain.from_iterable(getattr(optimizer, "float16_groups", ()))
    copies = chain.from_iterable(getattr(optimizer, "fp32_from_float16_groups", ()))
    parameter_of = {copy: half for half, copy in zip(halves, copies, strict=True)}
    for main in optimizer.get_parameters():
        yield parameter_of.get(main, main), _Place(optimizer.optimizer, main, start=0, is_shared=False)


def _sharded_places(optimizer: DistributedOptimizer) -> Iterator[tuple[torch.Tensor, _Place]]:
    for parameter, (group, order) in optimizer.model_param_group_index_map.items():
        span = optimizer._get_model_param_range_map(parameter)["param"]
        main = optimizer.optimizer.param_groups[group]["params"][order]
        yield parameter, _Place(optimizer.optimizer, main, span.start, is_shared=True)


def _found(node: Any, name: str) -> Iterator[Any]:
    """Every value under the key `name`, however deep."""
    if isinstance(node, dict):
        if name in node:
            yield node[name]
        node = node.values()
    elif not isinstance(node, list | tuple):
        return
    for value in node:
        yield from _found(value, name)

"""The optimizer's state in a checkpoint, read by parameter name: any layout and either optimizer reads what any wrote.

megatron-core's two optimizers write the same tensors in the shapes of the model's parameters ('fully_reshardable'
where the state is distributed), but each reads only its own. A rank reads here what its share overlaps.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.optimizer import make_sharded_optimizer_tensor
from megatron.core.dist_checkpointing.utils import extract_sharded_tensors_and_factories
from megatron.core.optimizer import ChainedOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from megatron.core.optimizer.optimizer import MegatronOptimizer

from gcpo_mcore.actor.sharded import Sharded, load_sharded

MOMENTS = ("exp_avg", "exp_avg_sq")
MAIN = "main"  # the fp32 weights that are stepped, where the model's own are of another dtype
KINDS = (*MOMENTS, MAIN)


class _Place(NamedTuple):
    """Where the state of a model parameter lies: `main` is what `optimizer` steps, the parameter's flat `span`."""

    optimizer: torch.optim.Optimizer
    main: torch.Tensor
    span: slice

    def tensor(self, kind: str) -> torch.Tensor:
        """The state of that kind."""
        return self.main if kind == MAIN else self.optimizer.state[self.main][kind]


class _Stepped(NamedTuple):
    """A model parameter that this rank steps: its entry in the model's sharded state dict, and its state's place."""

    entry: Sharded
    parameter: torch.Tensor
    place: _Place

    def has(self, kind: str) -> bool:
        """Whether its state has that kind. Weights kept in fp32 by the model are the model's to load."""
        return kind in MOMENTS or self.parameter.dtype is not torch.float32


def load_optimizer(optimizer: ChainedOptimizer, sharded_model: dict, shards: Path) -> None:
    """Fills the state of `optimizer` from a checkpoint.

    sharded_model: megatron's sharded state dict of the model's chunks, its data the parameters themselves.
    Runs inside `platform.megatron()`. A collective over all ranks.
    """
    common = dist_checkpointing.load_common_state_dict(str(shards))["optimizer"]
    stepped = _stepped(optimizer, sharded_model)
    wanted = {kind: _wanted(stepped, kind, name) for kind, name in _names(common).items()}
    loaded = load_sharded({"state": wanted}, shards, is_whole=False)["state"]
    for kind in KINDS:
        _fill(stepped, kind, loaded.get(kind, {}))
    _set_step(optimizer, _steps_done(common))


def _stepped(optimizer: ChainedOptimizer, sharded_model: dict) -> list[_Stepped]:
    """Those of the model's entries whose parameters this rank steps, wholly or a span of them."""
    places = {parameter: place for inner in optimizer.chained_optimizers for parameter, place in _places(inner)}
    entries = nested_values(extract_sharded_tensors_and_factories(sharded_model)[0])
    return [_Stepped(entry, entry.data, places[entry.data]) for entry in entries if entry.data in places]


def _places(optimizer: MegatronOptimizer) -> Iterator[tuple[torch.Tensor, _Place]]:
    """(model parameter, its place) of all that this rank steps."""
    if isinstance(optimizer, DistributedOptimizer):
        yield from _sharded_places(optimizer)
        return
    halves = chain.from_iterable(getattr(optimizer, "float16_groups", ()))
    copies = chain.from_iterable(getattr(optimizer, "fp32_from_float16_groups", ()))
    parameter_of = {copy: half for half, copy in zip(halves, copies, strict=True)}
    for main in optimizer.get_parameters():
        yield parameter_of.get(main, main), _Place(optimizer.optimizer, main, slice(None))


def _sharded_places(optimizer: DistributedOptimizer) -> Iterator[tuple[torch.Tensor, _Place]]:
    for parameter, (group, order) in optimizer.model_param_group_index_map.items():
        span = optimizer._get_model_param_range_map(parameter)["param"]
        main = optimizer.optimizer.param_groups[group]["params"][order]
        yield parameter, _Place(optimizer.optimizer, main, slice(span.start, span.end))


def _names(common: Any) -> dict[str, str]:
    """The checkpoint's name of each kind of state: the optimizer that wrote it named the fp32 weights."""
    is_distributed = any(_found(common, "param_state_sharding_type"))
    return {kind: kind for kind in MOMENTS} | {MAIN: "param" if is_distributed else "fp32_param"}


def _wanted(stepped: list[_Stepped], kind: str, name: str) -> dict[str, Sharded]:
    """By number in `stepped`: the whole state of that kind of a parameter, into memory of its own."""
    return {
        str(number): make_sharded_optimizer_tensor(
            one.entry, torch.empty_like(one.parameter, dtype=torch.float32), prefix=f"optimizer.state.{name}"
        )
        for number, one in enumerate(stepped)
        if one.has(kind)
    }


@torch.no_grad()
def _fill(stepped: list[_Stepped], kind: str, loaded: dict[str, torch.Tensor]) -> None:
    """Copies the spans that this rank steps out of what was `loaded`, by number in `stepped`."""
    for number, whole in loaded.items():
        place = stepped[int(number)].place
        target = place.tensor(kind)
        target.copy_(whole.flatten()[place.span].view_as(target))


def _steps_done(common: Any) -> float:
    """Updates that the checkpoint's optimizer had done: the newest count of either form."""
    steps = (float(step) for name in ("common_step", "step") for step in _found(common, name))
    return max(steps, default=0)


def _set_step(optimizer: ChainedOptimizer, step: float) -> None:
    """Sets the updates done so far: a tensor per parameter in torch's AdamW, a number per group in fused ones."""
    for inner in optimizer.chained_optimizers:
        for state in inner.optimizer.state.values():
            if "step" in state:
                state["step"].fill_(step)
        for group in inner.optimizer.param_groups:
            if "step" in group:
                group["step"] = int(step)


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

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
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

MOMENTS = ("exp_avg", "exp_avg_sq")


class _Place(NamedTuple):
    """Where the state of a model parameter lies: `main` is what `optimizer` steps, the parameter's flat `span`."""

    optimizer: torch.optim.Optimizer
    main: torch.Tensor
    span: slice


def load_optimizer(optimizer: MegatronOptimizer, sharded_model: dict, shards: Path) -> None:
    """Fills the state of `optimizer` from a checkpoint. Weights kept in fp32 by the model are the model's to load.

    sharded_model: megatron's sharded state dict of the model's chunks, its data the parameters themselves.
    Runs inside `platform.megatron()`. A collective over all ranks.
    """
    common = dist_checkpointing.load_common_state_dict(str(shards))["optimizer"]
    entries = list(nested_values(extract_sharded_tensors_and_factories(sharded_model)[0]))
    places = {id(parameter): place for parameter, place in _places(optimizer)}
    mine = [(entry, places[id(entry.data)]) for entry in entries if id(entry.data) in places]
    is_distributed = any(_found(common, "param_state_sharding_type"))
    names = {kind: kind for kind in MOMENTS} | {"main": "param" if is_distributed else "fp32_param"}
    wanted = {
        kind: {
            str(number): make_sharded_optimizer_tensor(
                entry, torch.empty_like(entry.data, dtype=torch.float32), prefix=f"optimizer.state.{name}"
            )
            for number, (entry, place) in enumerate(mine)
            if kind in MOMENTS or entry.data.dtype is not torch.float32
        }
        for kind, name in names.items()
    }
    # The check would want every piece of a tensor to be asked for by somebody, but a rank needs only its share.
    loaded = dist_checkpointing.load({"state": wanted}, str(shards), validate_access_integrity=False)["state"]
    with torch.no_grad():
        for number, (_, (inner, main, span)) in enumerate(mine):
            for kind in names:
                if str(number) in loaded.get(kind, {}):
                    target = main if kind == "main" else inner.state[main][kind]
                    target.copy_(loaded[kind][str(number)].flatten()[span].view_as(target))
    _set_step(
        optimizer, max((float(step) for name in ("common_step", "step") for step in _found(common, name)), default=0)
    )


def _places(optimizer: MegatronOptimizer) -> Iterator[tuple[torch.Tensor, _Place]]:
    """(model parameter, its place) of all that this rank steps."""
    for part in optimizer.chained_optimizers:
        if isinstance(part, DistributedOptimizer):
            for parameter, (group, order) in part.model_param_group_index_map.items():
                span = part._get_model_param_range_map(parameter)["param"]
                main = part.optimizer.param_groups[group]["params"][order]
                yield parameter, _Place(part.optimizer, main, slice(span.start, span.end))
            continue
        halves = chain.from_iterable(getattr(part, "float16_groups", ()))
        copies = chain.from_iterable(getattr(part, "fp32_from_float16_groups", ()))
        parameter_of = {id(copy): half for half, copy in zip(halves, copies, strict=True)}
        for main in part.get_parameters():
            yield parameter_of.get(id(main), main), _Place(part.optimizer, main, slice(None))


def _set_step(optimizer: MegatronOptimizer, step: float) -> None:
    """Updates done so far: a tensor per parameter in torch's AdamW, a number per group in fused ones."""
    for part in optimizer.chained_optimizers:
        for state in part.optimizer.state.values():
            if "step" in state:
                state["step"].fill_(step)
        for group in part.optimizer.param_groups:
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

"""What holds for tensors: that they are finite, and which names transformers' modules have for them on disk.

transformers holds all experts of a layer in two fused parameters and writes each expert by itself; everything else has
one name.
"""

import torch

from gcpo_mcore.base.errors import UserError


def check_finite(where: str, name: str, tensor: torch.Tensor) -> None:
    """UserError, naming the tensor, if a value is NaN or infinite. One pass over the values, no copy of them."""
    if tensor.numel() and not all(bound.isfinite() for bound in tensor.aminmax()):  # a NaN is its own bound
        nan, inf = int(tensor.isnan().sum()), int(tensor.isinf().sum())
        raise UserError(f"{where}: tensor {name} is not finite: {nan:,} NaN, {inf:,} infinite of {tensor.numel():,}")


def tensors_on_disk(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Name on disk -> the tensor, or the view of the fused one, that it fills. A tied output head is left out."""
    found: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        prefix, _, last = name.rpartition(".")
        if last == "gate_up_proj":  # [experts, 2 x intermediate, hidden]
            for e, both in enumerate(parameter.data):
                gate, up = both.chunk(2)
                found |= {f"{prefix}.{e}.gate_proj.weight": gate, f"{prefix}.{e}.up_proj.weight": up}
        elif last == "down_proj":  # [experts, hidden, intermediate]; a dense MLP's ends in .weight
            found |= {f"{prefix}.{e}.down_proj.weight": one for e, one in enumerate(parameter.data)}
        else:
            found[name] = parameter.data
    return found

"""What a low-rank adapter computes beside one of megatron-core's linear layers, at any layout.

megatron-core has queries, keys and values in one layer, and gate and up in another; each of these Hugging Face layers
has an A and a B of its own here, so that an adapter can be exported as it is. Over the tensor group (t ranks):

    column-parallel   x whole,            A whole,            B a rank's rows;     a = x A^T is gathered, not x
    row-parallel      x a rank's columns, A a rank's columns, B whole;             a is summed over the ranks

Under sequence parallelism a rank has its tokens' x, or gets its tokens' sum; what it finds for a whole A or B is then
one addend, which megatron-core sums as it does for norms. The messages have r columns in place of the layer's.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
    set_tensor_model_parallel_attributes,
)
from torch import nn

from gcpo_mcore.hf import lora


class Member(NamedTuple):
    """A Hugging Face layer inside of megatron-core's. rows: of this rank's output, in each group of rows."""

    name: str
    rows: int
    is_adapted: bool


class Factor(NamedTuple):
    """One A or B: its Hugging Face layer, 'A' or 'B', this rank's part, and the axis along which that is cut."""

    layer: str
    kind: str
    part: nn.Parameter
    axis: int | None


class Form(NamedTuple):
    """What all adapters of a model share. is_sequence_parallel: outside of the layer a rank has some tokens only."""

    rank: int
    scale: float
    dtype: torch.dtype
    is_sequence_parallel: bool


class LinearAdapter(nn.Module, ABC):
    """The adapters of one linear layer, called with its input; adds nothing while it is not `is_on`.

    group: the tensor group over which the layer is cut; None if it lies whole on a rank, as an expert's does.
    row_groups: in each of which the members' rows take turns.
    """

    cuts: tuple[int | None, int | None]  # the axes along which A and B are cut

    def __init__(
        self,
        weight: nn.Parameter,
        members: list[Member],
        form: Form,
        group: dist.ProcessGroup | None,
        is_expert: bool,
    ):
        super().__init__()
        self.members, self.form, self.group, self.is_expert = members, form, group, is_expert
        self.row_groups = weight.shape[0] // sum(member.rows for member in members)
        self.is_on = True
        for member in members:
            if member.is_adapted:
                a = torch.empty(form.rank, weight.shape[1], dtype=form.dtype, device=weight.device)
                b = torch.empty(self._rows(member), form.rank, dtype=form.dtype, device=weight.device)
                for kind, values, axis in (("A", a, self.cuts[0]), ("B", b, self.cuts[1])):
                    self.register_parameter(f"{_short(member)}_{kind}", nn.Parameter(values))
                    self._mark(self.factor(member, kind), weight, axis)

    def factor(self, member: Member, kind: str) -> nn.Parameter:
        """This rank's part of a member's A or B."""
        return getattr(self, f"{_short(member)}_{kind}")

    def factors(self) -> Iterator[Factor]:
        """Every A and B, in a fixed order."""
        for member in self.members:
            for kind, axis in zip("AB", self.cuts, strict=True) if member.is_adapted else ():
                yield Factor(member.name, kind, self.factor(member, kind), None if self.group is None else axis)

    @abstractmethod
    def delta(self) -> torch.Tensor:
        """What the adapters add to this rank's part of the layer's weight, in fp32 or wider."""

    def _rows(self, member: Member) -> int:
        return self.row_groups * member.rows

    def _mark(self, parameter: nn.Parameter, weight: nn.Parameter, axis: int | None) -> None:
        """Tells megatron-core over which ranks it sums the parameter's gradient, and counts its norm."""
        setattr(parameter, "allreduce", getattr(weight, "allreduce", True))  # noqa: B010 (torch's type has no such field)
        if axis is not None or self.is_expert:  # other tensor ranks hold another part, or other experts
            set_tensor_model_parallel_attributes(parameter, True, axis or 0, 1)
        elif self.form.is_sequence_parallel:
            setattr(parameter, "sequence_parallel", True)  # noqa: B010 (nor this)


class ColumnAdapter(LinearAdapter):
    """Of a layer whose output is cut. Its rows stand in groups, in each of which the members take turns: a group of
    queries, their key and their value; all of the gate, all of the up."""

    cuts = (None, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [s, b, in] -> [s, b, out / t]; under sequence parallelism s / t tokens come in."""
        adapted = [member for member in self.members if member.is_adapted]
        a = _project(x, torch.cat([self.factor(member, "A") for member in adapted]))
        if self.group is not None and self.form.is_sequence_parallel:
            a = gather_from_sequence_parallel_region(a, tensor_parallel_output_grad=True, group=self.group)
        elif self.group is not None:
            a = copy_to_tensor_model_parallel_region(a, group=self.group)
        each = dict(zip([m.name for m in adapted], a.split(self.form.rank, dim=-1), strict=True))
        parts = [
            (each[m.name] @ self.factor(m, "B").T).mul_(self.form.scale).to(x.dtype).unflatten(-1, (-1, m.rows))
            if m.is_adapted
            else x.new_zeros(()).expand(*a.shape[:-1], self.row_groups, m.rows)
            for m in self.members
        ]
        return torch.cat(parts, dim=-1).flatten(-2)

    def delta(self) -> torch.Tensor:
        """See `LinearAdapter`: [out / t, in]."""
        parts = []
        any_a = next(self.factors()).part
        for m in self.members:
            if m.is_adapted:
                whole = lora.product(self.factor(m, "A").detach(), self.factor(m, "B").detach(), self.form.scale)
            else:
                whole = any_a.new_zeros(self._rows(m), any_a.shape[1], dtype=torch.float32)
            parts.append(whole.unflatten(0, (-1, m.rows)))
        return torch.cat(parts, dim=1).flatten(0, 1)


class RowAdapter(LinearAdapter):
    """Of a layer whose input is cut; it is one Hugging Face layer."""

    cuts = (1, None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [s, b, in / t] -> [s, b, out]; under sequence parallelism s / t tokens go out."""
        (member,) = self.members
        a = _project(x, self.factor(member, "A"))
        if self.group is not None and self.form.is_sequence_parallel:
            a = reduce_scatter_to_sequence_parallel_region(a, group=self.group)
        elif self.group is not None:
            a = reduce_from_tensor_model_parallel_region(a, group=self.group)
        return (a @ self.factor(member, "B").T).mul_(self.form.scale).to(x.dtype)

    def delta(self) -> torch.Tensor:
        """See `LinearAdapter`: [out, in / t]."""
        (member,) = self.members
        return lora.product(self.factor(member, "A").detach(), self.factor(member, "B").detach(), self.form.scale)


def _short(member: Member) -> str:
    return member.name.rpartition(".")[2]


def _project(x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """x A^T in the type of A; of an x of another type nothing but itself is kept for the backward pass."""
    return x @ a.T if x.dtype is a.dtype else _Project.apply(x, a)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, a):
        ctx.save_for_backward(x, a)
        return x.to(a.dtype) @ a.T

    @staticmethod
    def backward(ctx, grad):
        x, a = ctx.saved_tensors
        return (grad @ a).to(x.dtype), grad.flatten(0, -2).T @ x.flatten(0, -2).to(a.dtype)

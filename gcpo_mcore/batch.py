"""The training batch: this rank's rows as padded tensors over response tokens, beside a table of all rows.

Shape letters: B rows (samples) of a step or an update over all ranks, b rows that this rank trains on, T response
tokens of the longest of them. Whatever compares rows (groups, denominators) reads the table, which every rank has;
whatever has a value a token is [b, T] and stays where it is. How rows become model input (padding, packing, parallel
axes) is the actor's business, so the objective is the same for every layout.

A batch passes four stages, each a type that has what the stage before has and more, so that none can be left out:

    Batch          what was sampled, graded and selected
    ScoredBatch    + the log-probs before the update, if they are known  Batch.scored
    WeighedBatch   + advantages and the surrogate's weights             Algorithm.weigh
    UpdateBatch    + what a token's loss counts, of one update's rows   Algorithm.begin_update
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import torch

from gcpo_mcore.base.collectives import Alone, Peers
from gcpo_mcore.samples import Facts, Group, Sample

NextStage = TypeVar("NextStage", bound="Batch")


@dataclass(frozen=True)
class Table:
    """What every rank knows of every row, [B] each: the number of its group (int64, ascending), tokens of prompt and
    response (int64), reward (float32), flags (bool), and whether it counts in the loss of the samples (`is_trained`).

    A golden answer that stands beside its group (`is_beside`) is no sample of it: it is in no advantage and none of the
    samples' losses, and supervised if it `is_imitated`.
    """

    group: torch.Tensor
    prompt_tokens: torch.Tensor
    tokens: torch.Tensor
    reward: torch.Tensor
    is_golden: torch.Tensor
    is_accurate: torch.Tensor
    is_truncated: torch.Tensor
    is_beside: torch.Tensor
    is_imitated: torch.Tensor
    is_trained: torch.Tensor

    @classmethod
    def of(cls, groups: Sequence[Group[Any]]) -> "Table":
        """The rows of all samples of `groups`, in order."""
        rows: list[tuple[int, Group[Any], Facts]] = [
            (n, group, s) for n, group in enumerate(groups) for s in group.samples
        ]
        tokens = torch.tensor([s.tokens for _, _, s in rows])
        is_beside = torch.tensor([s.is_beside for _, _, s in rows], dtype=torch.bool)
        return cls(
            group=torch.tensor([number for number, _, _ in rows]),
            prompt_tokens=torch.tensor([len(group.prompt.token_ids) for _, group, _ in rows]),
            tokens=tokens,
            reward=torch.tensor([s.reward for _, _, s in rows], dtype=torch.float32),
            is_golden=torch.tensor([s.is_golden for _, _, s in rows]),
            is_accurate=torch.tensor([s.is_accurate for _, _, s in rows]),
            is_truncated=torch.tensor([s.truncated for _, _, s in rows]),
            is_beside=is_beside,
            is_imitated=is_beside,
            is_trained=(tokens > 0) & ~is_beside,
        )

    def __len__(self) -> int:
        return len(self.group)

    @property
    def groups(self) -> int:
        """One more than the largest number of a group."""
        return int(self.group.max()) + 1

    @property
    def beside_tokens(self) -> int:
        """The response tokens of all golden answers that stand beside groups, imitated or not, at least 1."""
        return max(int(self.tokens[self.is_beside].sum()), 1)

    def in_groups_of(self, rows: torch.Tensor) -> torch.Tensor:
        """[B] whether one of `rows` [B] bool is in a row's group."""
        numbers = torch.zeros(self.groups, dtype=torch.bool)
        numbers[self.group[rows]] = True
        return numbers[self.group]

    @property
    def trained_rows(self) -> int:
        """How many rows count in the loss, at least 1."""
        return max(int(self.is_trained.sum()), 1)

    @property
    def trained_tokens(self) -> int:
        """Their response tokens, at least 1."""
        return max(int(self.tokens[self.is_trained].sum()), 1)

    def choose(self, numbers: torch.Tensor) -> "Table":
        """The table of these rows."""
        return Table(**{f.name: getattr(self, f.name)[numbers] for f in fields(self)})

    def update_of(self, updates: int) -> torch.Tensor:
        """[B] which of at most `updates` updates each row belongs to: whole groups in order, as many in each but the
        last."""
        return self.group // -(-self.groups // updates)


class Content(NamedTuple):
    """What only the ranks that train on a row have of it; `rollout_logp` is empty for a golden answer."""

    prompt_ids: Sequence[int]
    response_ids: np.ndarray
    rollout_logp: np.ndarray
    routed_experts: np.ndarray | None


@dataclass(frozen=True)
class Batch:
    """Rows as they were sampled.

    table          of all rows, on every rank
    mine           [b] int64, which of them are this rank's (ranks that share a model's parts have the same)
    peers          the ranks that have the others
    prompt_ids, response_ids   token ids of each row
    routed_experts  of each row, as in Sample
    mask           [b, T] float, 1 on response tokens
    is_golden      [b] bool
    is_accurate    [b] bool
    rollout_logp   [b, T] the engine's log-probs; zeros for golden rows, which have none
    """

    table: Table
    mine: torch.Tensor
    peers: Peers
    prompt_ids: list[Sequence[int]]
    response_ids: list[np.ndarray]
    routed_experts: list[np.ndarray | None]
    mask: torch.Tensor
    is_golden: torch.Tensor
    is_accurate: torch.Tensor
    rollout_logp: torch.Tensor

    @classmethod
    def of(cls, groups: Sequence[Group[Sample]]) -> "Batch":
        """All samples of `groups`, in order, as the rows of a rank that has no peers."""
        rows = [(group.prompt, sample) for group in groups for sample in group.samples]
        contents = [Content(p.token_ids, s.response_ids, s.rollout_logp, s.routed_experts) for p, s in rows]
        return cls.build(Table.of(groups), torch.arange(len(rows)), contents, Alone())

    @classmethod
    def build(cls, table: Table, mine: torch.Tensor, contents: Sequence[Content], peers: Peers) -> "Batch":
        """The batch of the rows `mine` of `table`, from their `contents` in that order."""
        longest = max((len(content.response_ids) for content in contents), default=0)
        mask, rollout_logp = np.zeros((2, len(contents), longest), np.float32)
        for row, content in enumerate(contents):
            mask[row, : len(content.response_ids)] = 1
            rollout_logp[row, : len(content.rollout_logp)] = content.rollout_logp
        return cls(
            table=table,
            mine=mine,
            peers=peers,
            prompt_ids=[content.prompt_ids for content in contents],
            response_ids=[content.response_ids for content in contents],
            routed_experts=[content.routed_experts for content in contents],
            mask=torch.from_numpy(mask),
            is_golden=table.is_golden[mine],
            is_accurate=table.is_accurate[mine],
            rollout_logp=torch.from_numpy(rollout_logp),
        )

    def scored(self, old_logp: torch.Tensor | None, ref_logp: torch.Tensor | None = None) -> "ScoredBatch":
        """The next stage: `old_logp` [b, T] of the actor, None if the step's one update will give them; `ref_logp`
        [b, T] of the reference policy if there is one."""
        is_known = old_logp is not None
        unknown = torch.full_like(self.mask, torch.nan)
        return self.grown(
            ScoredBatch, has_old_logp=is_known, old_logp=old_logp if is_known else unknown, ref_logp=ref_logp
        )

    def grown(self, stage: type[NextStage], **more: Any) -> NextStage:
        """A later stage of this batch, with the fields that it has besides."""
        return stage(**{f.name: getattr(self, f.name) for f in fields(self)} | more)

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @property
    def lengths(self) -> torch.Tensor:
        """[b] response tokens of each row."""
        return self.mask.sum(1)

    def everywhere(self, values: torch.Tensor) -> torch.Tensor:
        """[B] a value of every row, on every rank, from `values` [b] of this rank's. A collective over the peers."""
        out = values.new_zeros(len(self.table))
        out[self.mine] = values
        return self.peers.sum(out)

    def split(self, updates: int) -> list[Self]:
        """The batches of at most `updates` updates (`Table.update_of`); each has its own rows' table."""
        numbers = self.table.update_of(updates)
        count = int(numbers.max()) + 1
        return [self._of_update(numbers, number) for number in range(count)] if count > 1 else [self]

    def _of_update(self, numbers: torch.Tensor, number: int) -> Self:
        chosen = (numbers == number).nonzero().squeeze(1)
        place = torch.full((len(numbers),), -1).index_put_((chosen,), torch.arange(len(chosen)))
        rows = (place[self.mine] >= 0).nonzero().squeeze(1)
        batch = self.choose(rows.tolist())
        return replace(batch, table=self.table.choose(chosen), mine=place[batch.mine])

    def choose(self, rows: list[int]) -> Self:
        """The batch of these of its rows, beside the whole table."""
        return self._each(lambda value: value[rows] if isinstance(value, torch.Tensor) else [value[i] for i in rows])

    def to(self, device: torch.device) -> Self:
        """The batch with the tensors of its rows on `device`."""
        return self._each(lambda value: value.to(device) if isinstance(value, torch.Tensor) else value)

    def _each(self, change) -> Self:
        """`change` applied to every field that has an entry for each row."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values = {name: value for name, value in values.items() if isinstance(value, torch.Tensor | list)}
        return replace(self, **{name: change(value) for name, value in values.items()})


@dataclass(frozen=True)
class ScoredBatch(Batch):
    """old_logp  [b, T] the actor's log-probs before the update
    ref_logp  [b, T] the reference policy's; None if there is none
    has_old_logp  whether `old_logp` is known. If not, it is not a number: the update's own forward pass gives it
              (`Algorithm.settle`), and what would read it before shows
    """

    has_old_logp: bool
    old_logp: torch.Tensor
    ref_logp: torch.Tensor | None

    @property
    def reference_logp(self) -> torch.Tensor:
        """`ref_logp`, which a part that says it needs a reference can rely on."""
        assert self.ref_logp is not None, "a part reads reference log-probs without saying needs_reference"
        return self.ref_logp


@dataclass(frozen=True)
class WeighedBatch(ScoredBatch):
    """loss_mask         [b, T] `mask` without the rows that are left out of the loss
    advantage         [b, T]
    surrogate_weight  [b, T] factor of the surrogate: engine against actor, golden rows; 1 where there is none

    `rollout_logp` of golden rows is `old_logp`. Both this and `surrogate_weight` follow from `old_logp`, and are not
    numbers while it is unknown.
    """

    loss_mask: torch.Tensor
    advantage: torch.Tensor
    surrogate_weight: torch.Tensor


@dataclass(frozen=True)
class UpdateBatch(WeighedBatch):
    """loss_weight    [b, T] what a token's loss counts: sums to 1 over the update for the mean reductions
    logp_gradient  [b, T] derivative of a group-wise loss by each log-prob; None for losses of single tokens
    loss_share     [b] the rows' equal shares of a group-wise loss; None likewise (objective/contrast.py)
    imitation_weight  [b, T] what a token's log-prob counts as an imitated one's; None if none are
    progress       share of the stage's updates that are done, in [0, 1)
    """

    loss_weight: torch.Tensor
    logp_gradient: torch.Tensor | None
    loss_share: torch.Tensor | None
    imitation_weight: torch.Tensor | None
    progress: float

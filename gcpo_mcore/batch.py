"""The training batch: samples as padded tensors over response tokens.

Shape letters: B rows (samples), T response tokens of the longest row. Everything that the objective
reads is [B, T] or [B]; how rows become model input (padding, packing, parallel axes) is the actor's
business, so the objective is the same for every layout.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch

from gcpo_mcore.samples import Group


@dataclass
class Batch:
    """Rows of one step or update. The fields from `loss_mask` on are filled step by step before the update.

    prompt_ids, response_ids   token ids of each row
    routed_experts    of each row, as in Sample
    group             [B] int64, number of the row's group
    mask              [B, T] float, 1 on response tokens
    reward            [B] float
    is_golden         [B] bool
    is_accurate       [B] bool
    is_truncated      [B] bool, cut at the length limit
    loss_mask         [B, T] `mask` without the rows that are left out of the loss
    rollout_logp      [B, T] the engine's log-probs; golden rows have none (zeros) until `old_logp` is known
    old_logp          [B, T] the actor's log-probs before the update
    ref_logp          [B, T] the reference policy's, zeros if there is none
    advantage         [B, T]
    surrogate_weight  [B, T] factor of the surrogate: engine vs actor, golden rows; 1 where there is none
    loss_weight       [B, T] what a token's loss counts: sums to 1 over the update for the mean reductions
    logp_gradient     [B, T] derivative of a group-wise loss by each log-prob (objective/contrast.py)
    loss_share        [B] the rows' equal shares of a group-wise loss
    """

    prompt_ids: list[list[int]]
    response_ids: list[list[int]]
    routed_experts: list[np.ndarray | None]
    group: torch.Tensor
    mask: torch.Tensor
    reward: torch.Tensor
    is_golden: torch.Tensor
    is_accurate: torch.Tensor
    is_truncated: torch.Tensor
    loss_mask: torch.Tensor
    rollout_logp: torch.Tensor
    old_logp: torch.Tensor
    ref_logp: torch.Tensor
    advantage: torch.Tensor
    surrogate_weight: torch.Tensor
    loss_weight: torch.Tensor
    logp_gradient: torch.Tensor
    loss_share: torch.Tensor

    @classmethod
    def of(cls, groups: list[Group]) -> "Batch":
        """The batch of all samples of `groups`, in order."""
        rows = [(number, group, sample) for number, group in enumerate(groups) for sample in group.samples]
        longest = max(len(sample.response_ids) for _, _, sample in rows)

        def grid(row_values) -> torch.Tensor:
            out = np.zeros((len(rows), longest), np.float32)
            for i, values in enumerate(row_values):
                out[i, : len(values)] = values
            return torch.from_numpy(out)

        mask = grid(np.ones(len(s.response_ids)) for _, _, s in rows)
        return cls(
            prompt_ids=[g.prompt.token_ids for _, g, _ in rows],
            response_ids=[s.response_ids for _, _, s in rows],
            routed_experts=[s.routed_experts for _, _, s in rows],
            group=torch.tensor([number for number, _, _ in rows]),
            mask=mask,
            reward=torch.tensor([s.reward for _, _, s in rows], dtype=torch.float32),
            is_golden=torch.tensor([s.is_golden for _, _, s in rows]),
            is_accurate=torch.tensor([s.is_accurate for _, _, s in rows]),
            is_truncated=torch.tensor([s.truncated for _, _, s in rows]),
            loss_mask=mask.clone(),
            rollout_logp=grid(s.rollout_logp for _, _, s in rows),
            old_logp=torch.zeros_like(mask),
            ref_logp=torch.zeros_like(mask),
            advantage=torch.zeros_like(mask),
            surrogate_weight=torch.ones_like(mask),
            loss_weight=torch.zeros_like(mask),
            logp_gradient=torch.zeros_like(mask),
            loss_share=torch.zeros(len(rows)),
        )

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @property
    def lengths(self) -> torch.Tensor:
        """[B] response tokens of each row."""
        return self.mask.sum(1)

    @property
    def trained_rows(self) -> torch.Tensor:
        """Scalar: how many rows are not left out of the loss, at least 1."""
        return self.loss_mask.any(1).sum().clamp(min=1)

    def split(self, parts: int) -> list["Batch"]:
        """At most `parts` batches of whole groups, in order, of as many groups each but for the last."""
        size = -(-(int(self.group.max()) + 1) // parts)
        numbers = (self.group // size).tolist()
        rows = [[i for i, n in enumerate(numbers) if n == part] for part in range(max(numbers) + 1)]
        return [self.take(r) for r in rows] if len(rows) > 1 else [self]

    def take(self, rows: list[int], tokens: int | None = None) -> "Batch":
        """The batch of `rows`, cut to `tokens` columns (default: all)."""
        values = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, list):
                values[f.name] = [value[i] for i in rows]
            else:
                values[f.name] = value[rows] if value.dim() == 1 else value[rows, :tokens]
        return Batch(**values)

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on `device`."""
        move = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in move.items()})

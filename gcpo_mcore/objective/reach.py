"""How far golden answers are from what sampling reaches: metrics, and the gate that decides which are imitated."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from gcpo_mcore.batch import Batch, WeighedBatch
from gcpo_mcore.objective.golden import Golden
from gcpo_mcore.objective.golden_tokens import low_quantile


def measure_reach(batch: WeighedBatch, bound: float) -> dict[str, float]:
    """Over the golden answers of all ranks, from settled rows; {} if there are none. A collective over the peers.

    logp_min, logp_q10  means over the answers: of the worst token, of the token that a tenth of them lie below
    reachable_fraction  of the answers, those whose worst token is not below `bound`
    token_mass          of the response tokens that count in the loss, those of golden answers
    """
    table = batch.table
    if not bool(table.is_golden.any()):
        return {}
    worst, low = (batch.everywhere(low_quantile(batch.old_logp, batch.mask, q))[table.is_golden] for q in (0.0, 0.1))
    counts = table.is_trained | table.is_imitated
    golden_tokens = int(table.tokens[counts & table.is_golden].sum())
    return {
        "golden/logp_min": float(worst.double().mean()),
        "golden/logp_q10": float(low.double().mean()),
        "golden/reachable_fraction": float((worst >= bound).double().mean()),
        "golden/token_mass": golden_tokens / max(int(table.tokens[counts].sum()), 1),
    }


class ReachGate:
    """Which golden answers are imitated, by the ids of their prompts: it has hysteresis, so it remembers them.

    The same on every rank.
    """

    def __init__(self, golden: Golden):
        self.golden = golden
        self.imitated: set[str] = set()

    def admit(self, batch: Batch, logp: torch.Tensor, prompt_ids: Sequence[str]) -> tuple[Batch, dict[str, float]]:
        """`batch` in which the golden answers beside groups are imitated only while sampling does not reach them.

        logp        [b, T] present log-probs, of golden rows at least
        prompt_ids  of the groups, by their number
        A collective over the batch's peers.
        """
        table = batch.table
        if not bool(table.is_beside.any()):
            return batch, {}
        fresh, going_on = (batch.everywhere(found.float()) > 0 for found in self.golden.is_imitated(logp, batch.mask))
        was = torch.tensor([prompt_ids[number] in self.imitated for number in table.group.tolist()])
        is_imitated = table.is_beside & torch.where(was, going_on, fresh)
        for row in table.is_beside.nonzero().squeeze(1).tolist():
            id_ = prompt_ids[int(table.group[row])]
            (self.imitated.add if is_imitated[row] else self.imitated.discard)(id_)
        metrics = {
            "golden/imitated_fraction": float(is_imitated.sum() / table.is_beside.sum()),
            "golden/imitated_prompts": float(len(self.imitated)),
        }
        return replace(batch, table=replace(table, is_imitated=is_imitated)), metrics

    def state(self) -> list[str]:
        """What a checkpoint keeps."""
        return sorted(self.imitated)

    def restore(self, state: Sequence[str]) -> None:
        """Goes to where `state` was taken."""
        self.imitated = set(state)

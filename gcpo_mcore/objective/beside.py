"""Golden answers beside the groups: supervised in a loss of their own, next to that of the samples.

    L = L_samples + mu L_golden     (or (1 - mu) L_samples + mu L_golden)
    L_golden = -1/N sum over imitated g of sum_t phi_t log pi(g_t)

N are the response tokens of all golden answers beside groups of the update, imitated or not: what an answer counts does
not depend on how many others are still imitated. The samples' advantages do not see the golden answer; a filter sees it
as one of the group, so that an all-wrong group with one has contrast.

Which are imitated: those of groups that were solved rarely enough (`max_solved`), and with `gate=reachable` of these
only what sampling does not reach.
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.batch import ScoredBatch, UpdateBatch, WeighedBatch
from gcpo_mcore.objective.golden import Golden
from gcpo_mcore.objective.golden_tokens import (
    Schedule,
    TokenWeight,
    check_schedule,
    low_quantile,
    scheduled,
    token_weights,
)
from gcpo_mcore.objective.part import Composition
from gcpo_mcore.samples import AnyFacts, Group

Share = Annotated[float, Field(ge=0, le=1)]


class Beside(Golden, option="beside"):
    """max_solved    of the group's samples: where more are accurate, the golden answer is left out
    gate             'open': all others are imitated. 'reachable' (ours): one whose `reach_quantile` of token log-probs
                     (0: its worst token) is below `reach_logp`, until it is `reach_hysteresis` nats above it
    weight           mu; `schedule` leads it to weight_end at the end of the stage
    blend            the samples' loss is multiplied by 1 - mu
    token_weight     phi (objective/golden_tokens.py)
    others           the samples of a group whose golden answer is imitated: 'keep', or 'zero': advantage 0
    """

    fits_guide: ClassVar[bool] = False
    max_solved: Share
    gate: Literal["open", "reachable"]
    reach_logp: Annotated[float, Field(lt=0)]
    reach_quantile: Share
    reach_hysteresis: NonNegativeFloat
    weight: PositiveFloat
    weight_end: NonNegativeFloat | None
    schedule: Schedule
    blend: bool
    token_weight: TokenWeight
    others: Literal["keep", "zero"]

    def fits(self, algorithm: Composition) -> None:
        check_schedule(self.schedule, self.weight_end)
        if self.blend and max(self.weight, self.weight_end or 0.0) > 1:
            raise UserError(
                f"algorithm.golden.blend=true gives the samples 1 - weight, so algorithm.golden.weight={self.weight} "
                f"and weight_end={self.weight_end} have to be at most 1"
            )
        if self.reach_logp + self.reach_hysteresis > 0:
            raise UserError(
                f"algorithm.golden.reach_logp={self.reach_logp} + reach_hysteresis={self.reach_hysteresis} is above 0: "
                "no log-prob ever is, so that nothing would be left to the samples"
            )
        if self.others == "zero" and algorithm.surrogate.compares_samples:
            raise UserError(
                f"algorithm.golden.others=zero: algorithm.surrogate={algorithm.surrogate.name} weighs no row"
            )

    @property
    def measures_reach(self) -> bool:
        """See `Golden`."""
        return self.gate == "reachable"

    @property
    def reach_bound(self) -> float:
        """See `Golden`."""
        return self.reach_logp

    def is_due(self, group: Group[Any]) -> bool:
        return group.accuracy <= self.max_solved

    def put(self, golden: AnyFacts, group: Group[AnyFacts], step: int) -> None:
        golden.index, golden.is_beside = len(group.samples), True
        group.samples = [*group.samples, golden]

    def is_imitated(self, logp: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = low_quantile(logp, mask, self.reach_quantile)
        return found < self.reach_logp, found < self.reach_logp + self.reach_hysteresis

    def advantages(self, batch: ScoredBatch, advantage: torch.Tensor) -> torch.Tensor:
        if self.others == "keep":
            return advantage
        with_imitated = batch.table.in_groups_of(batch.table.is_imitated)[batch.mine]
        return advantage.masked_fill(with_imitated.unsqueeze(1), 0.0)

    def imitation(self, batch: WeighedBatch, progress: float) -> torch.Tensor:
        is_imitated = batch.table.is_imitated[batch.mine].unsqueeze(1)
        return self._weight(progress) / batch.table.beside_tokens * is_imitated * batch.mask

    def share_of_rest(self, progress: float) -> float:
        return 1 - self._weight(progress) if self.blend else 1.0

    def factors(self, logp: torch.Tensor, entropy: torch.Tensor, rows: UpdateBatch) -> torch.Tensor:
        by_token = token_weights(self.token_weight, logp, entropy, rows.old_logp, self.reach_logp)
        return torch.where(rows.is_golden.unsqueeze(1), by_token, 1.0)

    def _weight(self, progress: float) -> float:
        return scheduled(self.schedule, self.weight, self.weight_end, progress)

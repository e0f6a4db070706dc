"""Golden answers: when, and in whose place, a verified reference solution joins the group.

Decided on the accuracy flag, not on the total reward (GCPO, arXiv 2510.07790: used when ALL sampled
responses of a prompt are incorrect; ONE of them is replaced). Which one the paper's reachable text does not
say: `slot` is our knob.
"""

import hashlib
import math
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.batch import ScoredBatch, UpdateBatch, WeighedBatch
from gcpo_mcore.objective.golden_tokens import Schedule, TokenWeight, check_schedule, scheduled, token_weights
from gcpo_mcore.objective.importance import Ratio
from gcpo_mcore.objective.part import Composition, Part
from gcpo_mcore.samples import AnyFacts, Group

REACH_BOUND = math.log(0.01)  # for the metrics of options that have no bound of their own: one sample in a hundred


class Golden(Part, kind="golden"):
    """Kind: golden-answer injection."""

    fits_guide: ClassVar[bool] = True  # False: the rest of a golden answer will not do

    @property
    def measures_reach(self) -> bool:
        """Whether every golden answer of a step is measured before it is known which are imitated (`is_imitated`)."""
        return False

    @property
    def reach_bound(self) -> float:
        """In nats: a golden token below it is one that sampling does not reach."""
        return REACH_BOUND

    def rollouts_per_prompt(self, samples_per_prompt: int) -> int:
        """How many responses to sample for a group of `samples_per_prompt`."""
        return samples_per_prompt

    @property
    def needs_golden(self) -> bool:
        """Whether golden answers are read, verified and counted at all."""
        return True

    def inject(self, group: Group[Any], step: int) -> bool:
        """Changes `group` in place if it is due and has a verified golden answer; whether it did."""
        if group.golden is None or not group.golden.is_accurate or not self.is_due(group):
            return False
        self.put(group.golden, group, step)
        return True

    def put(self, golden: AnyFacts, group: Group[AnyFacts], step: int) -> None:
        """Puts the golden answer into a group that is due: in the place of a sample."""
        slot = self.pick(group, step)
        group.samples[slot] = _golden_at(slot, golden)

    def is_due(self, group: Group[Any]) -> bool:
        """Whether this group should get its golden answer."""
        return False

    def pick(self, group: Group[Any], step: int) -> int:
        """The sample to replace."""
        return 0

    def advantages(self, batch: ScoredBatch, advantage: torch.Tensor) -> torch.Tensor:
        """`advantage` [b, T] with what the golden answer of a group changes in it."""
        return advantage

    def is_imitated(self, logp: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[b] whether a golden answer is to be imitated if it was not, and if it was, by its log-probs [b, T]."""
        raise TypeError(f"{type(self).__name__} measures no reach")

    def imitation(self, batch: WeighedBatch, progress: float) -> torch.Tensor | None:
        """[b, T] what each token of an imitated golden answer counts in the loss; None if there can be none."""
        return None

    def share_of_rest(self, progress: float) -> float:
        """The factor of all that is not imitation in the loss."""
        return 1.0

    def factors(self, logp: torch.Tensor, entropy: torch.Tensor, rows: UpdateBatch) -> torch.Tensor | None:
        """[r, T] factors of the tokens of golden answers, in surrogate or imitation; None: all are 1."""
        return None

    def adjust(self, ratio: Ratio, logp: torch.Tensor, rows: UpdateBatch) -> Ratio:
        """`ratio` of the rows with that of the golden ones changed."""
        return ratio


class Off(Golden, option="off"):
    """Never: groups stay as sampled."""

    @property
    def needs_golden(self) -> bool:
        return False


class _Replace(Golden):
    """slot         which sample is replaced
    ratio        of golden rows. 'old': against the actor's log-probs before the update, as for every row.
                 'sft': 1, with the gradient of log pi. 'luffy': pi / (pi + luffy_gamma) per token, not clipped,
                 the golden answer's behaviour probability taken as 1 (LUFFY, arXiv 2504.14945, eq. 6)
    clip_low, clip_high  range of golden rows, as in the importance part; null: that part's
    weight       factor of the surrogate of golden rows; `schedule` leads it to weight_end at the end of the stage
    token_weight  factor of each of their tokens (objective/golden_tokens.py)
    others       of a group with a golden answer in it: 'keep' as they are, 'zero': advantage 0
    advantage    of golden rows; null: the advantage part's
    """

    slot: Literal["random", "lowest_reward", "first", "longest"]
    ratio: Literal["old", "sft", "luffy"]
    luffy_gamma: PositiveFloat
    clip_low: NonNegativeFloat | None
    clip_high: NonNegativeFloat | None
    weight: PositiveFloat
    weight_end: NonNegativeFloat | None
    schedule: Schedule
    token_weight: TokenWeight
    others: Literal["keep", "zero"]
    advantage: PositiveFloat | None

    def fits(self, algorithm: Composition) -> None:
        surrogate = algorithm.surrogate
        has_range = self.clip_low is not None or self.clip_high is not None
        if self.ratio != "old" and not surrogate.uses_ratio:
            raise UserError(
                f"algorithm.golden.ratio={self.ratio}: algorithm.surrogate={surrogate.name} has no ratio; use ratio=old"
            )
        if self.ratio == "luffy" and not surrogate.uses_clip_range:
            raise UserError(
                f"algorithm.golden.ratio=luffy shapes the ratio itself, as algorithm.surrogate={surrogate.name} does: "
                "it needs algorithm/surrogate=clipped"
            )
        if has_range and not (surrogate.uses_clip_range and self.ratio == "old"):
            raise UserError(
                "algorithm.golden.clip_low and clip_high need algorithm/surrogate=clipped and "
                "algorithm.golden.ratio=old"
            )
        check_schedule(self.schedule, self.weight_end)
        by_token = surrogate.by_token and (self.ratio != "old" or algorithm.importance.level != "sequence")
        if self.token_weight != "one" and not (by_token or surrogate.compares_samples):
            raise UserError(
                f"algorithm.golden.token_weight={self.token_weight}: under algorithm.surrogate={surrogate.name} and "
                f"algorithm.importance={algorithm.importance.name} all tokens of a row have the same gradient; "
                "algorithm.golden.ratio=sft and surrogate=clipped give each its own"
            )
        plain = {"weight": 1, "schedule": "constant", "token_weight": "one", "others": "keep", "advantage": None}
        for key, nothing in plain.items() if surrogate.compares_samples else ():
            if (value := getattr(self, key)) != nothing:
                raise UserError(f"algorithm.golden.{key}={value}: algorithm.surrogate={surrogate.name} weighs no row")

    def advantages(self, batch: ScoredBatch, advantage: torch.Tensor) -> torch.Tensor:
        golden, table = batch.is_golden.unsqueeze(1), batch.table
        if self.others == "zero":
            is_other = table.in_groups_of(table.is_golden)[batch.mine].unsqueeze(1) & ~golden
            advantage = advantage.masked_fill(is_other, 0.0)
        if self.advantage is not None:
            advantage = torch.where(golden, self.advantage * batch.mask, advantage)
        return advantage

    def factors(self, logp: torch.Tensor, entropy: torch.Tensor, rows: UpdateBatch) -> torch.Tensor:
        weight = scheduled(self.schedule, self.weight, self.weight_end, rows.progress)
        by_token = token_weights(self.token_weight, logp, entropy, rows.old_logp, self.reach_bound)
        return torch.where(rows.is_golden.unsqueeze(1), weight * by_token, 1.0)

    def adjust(self, ratio: Ratio, logp: torch.Tensor, rows: UpdateBatch) -> Ratio:
        golden = rows.is_golden.unsqueeze(1)
        log, low, high = ratio.log, ratio.low, ratio.high
        if self.ratio == "sft":
            log = torch.where(golden, logp - logp.detach(), log)
        elif self.ratio == "luffy":  # pi / (pi + gamma) = sigmoid(log pi - log gamma)
            log = torch.where(golden, F.logsigmoid(logp - math.log(self.luffy_gamma)), log)
        if self.ratio != "old":
            low, high = low.masked_fill(golden, 0.0), high.masked_fill(golden, torch.inf)
        if self.clip_low is not None:
            low = low.masked_fill(golden, 1 - self.clip_low)
        if self.clip_high is not None:
            high = high.masked_fill(golden, 1 + self.clip_high)
        return Ratio(log, low, high)

    def pick(self, group: Group[Any], step: int) -> int:
        samples = group.samples
        if self.slot == "random":  # seeded by prompt and step: the same on every rank and after a resume
            digest = hashlib.sha256(f"{group.prompt.id}|{step}".encode()).digest()
            return int.from_bytes(digest[:8], "little") % len(samples)
        if self.slot == "lowest_reward":
            return min(range(len(samples)), key=lambda i: (samples[i].reward, i))
        if self.slot == "longest":
            return max(range(len(samples)), key=lambda i: (samples[i].tokens, -i))
        return 0


class AllWrong(_Replace, option="all_wrong"):
    """When no sample of the group is accurate (GCPO)."""

    def is_due(self, group: Group[Any]) -> bool:
        return not any(s.is_accurate for s in group.samples)


class Always(_Replace, option="always"):
    """In every group (as LUFFY does with its one off-policy trace, arXiv 2504.14945)."""

    def is_due(self, group: Group[Any]) -> bool:
        return True


class Only(Golden, option="only"):
    """Nothing is sampled: the golden answer is the whole group (supervised training)."""

    fits_guide: ClassVar[bool] = False

    def rollouts_per_prompt(self, samples_per_prompt: int) -> int:
        return 0

    def is_due(self, group: Group[Any]) -> bool:
        return True

    def put(self, golden: AnyFacts, group: Group[AnyFacts], step: int) -> None:
        group.samples = [_golden_at(0, golden)]


def _golden_at(slot: int, golden: AnyFacts) -> AnyFacts:
    golden.index = slot
    return golden

"""Guides: whether a group in which every sample is wrong is sampled again behind the first tokens of its golden answer.

The row's context is prompt + prefix, and what is trained on is what the policy wrote after it: the same log-probs,
token by token, as of a response to the plain prompt whose first tokens are masked. So a guided group is one of the
prompt x + g[:n], whose golden answer is g[n:], and no loss has to know of it. How much of an answer is given is
remembered by prompt (gcpo_mcore/run/guiding.py).
"""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field, PositiveFloat

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.objective.part import Composition, Part
from gcpo_mcore.samples import Group

Share = Annotated[float, Field(ge=0, le=1)]
ROUNDING = 1e-9  # sums of shares fall a hair short of a whole token


class Guide(Part, kind="guide"):
    """Kind: guidance by golden prefixes."""

    @property
    def needs_golden(self) -> bool:
        """Whether golden answers are read, verified and counted for it."""
        return True

    def is_due(self, group: Group[Any]) -> bool:
        """Whether this group is to be sampled again: all wrong, and its golden answer verified."""
        return bool(group.samples) and group.accuracy == 0 and group.golden is not None and group.golden.is_accurate

    @property
    def first(self) -> float:
        """The share of its golden answer that a prompt is given the first time."""
        raise TypeError(f"{type(self).__name__} gives nothing")

    def next(self, fraction: float, is_solved: bool) -> float:
        """The share for the next time, when with `fraction` some sample, or none, was right."""
        return fraction

    def length(self, golden_ids: list[int], fraction: float, decode: Callable[[list[int]], str]) -> int:
        """Tokens of the golden answer that are given: at most `fraction` of them, never the last."""
        raise TypeError(f"{type(self).__name__} gives nothing")


class Off(Guide, option="off"):
    """Never: nothing is sampled again."""

    @property
    def needs_golden(self) -> bool:
        return False

    def is_due(self, group: Group[Any]) -> bool:
        return False


class Fixed(Guide, option="fixed"):
    """The same share for every prompt, always.

    fraction   of the golden answer's tokens
    cut_after  texts after one of which the prefix has to end, cut back to the last; none: it is cut at any token
    """

    fraction: Share
    cut_after: list[str]

    def fits(self, algorithm: Composition) -> None:
        if not algorithm.golden.fits_guide:
            raise UserError(
                f"algorithm.guide={self.name} makes a group's golden answer the rest of one: "
                f"algorithm.golden={algorithm.golden.name} needs whole ones; use algorithm/guide=off, or "
                "algorithm/golden=all_wrong, always or off"
            )

    @property
    def first(self) -> float:
        return self.fraction

    def length(self, golden_ids: list[int], fraction: float, decode: Callable[[list[int]], str]) -> int:
        most = min(int(fraction * len(golden_ids) + ROUNDING), len(golden_ids) - 1)
        if not self.cut_after:
            return most
        ends = tuple(self.cut_after)
        return next((n for n in range(most, 0, -1) if decode(golden_ids[:n]).endswith(ends)), 0)


class Cascade(Fixed, option="cascade"):
    """The share of a prompt grows each time that it was not enough (the order of OC-GRPO's tries, arXiv 2607.19313).

    change        what is added to it
    fraction_max  its bound
    """

    change: PositiveFloat
    fraction_max: Share

    def fits(self, algorithm: Composition) -> None:
        super().fits(algorithm)
        if self.fraction > self.fraction_max:
            raise UserError(
                f"algorithm.guide.fraction={self.fraction} is above algorithm.guide.fraction_max={self.fraction_max}"
            )

    def next(self, fraction: float, is_solved: bool) -> float:
        return fraction if is_solved else min(fraction + self.change, self.fraction_max)


class Adaptive(Cascade, option="adaptive"):
    """It shrinks again by `change` when it was enough, down to nothing (the idea of AdaBack, arXiv 2506.18110)."""

    def next(self, fraction: float, is_solved: bool) -> float:
        return max(fraction - self.change, 0.0) if is_solved else super().next(fraction, is_solved)

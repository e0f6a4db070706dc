"""Figures of a benchmark from the verdicts on its samples, and their standard errors.

Every estimate is a mean over problems, so its standard error is that of a mean of independent problems: the samples of
one problem are not counted as independent.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

PLAIN_NUMBER = re.compile(r"[+-]?\d{1,100}(\.\d{1,100}|/0*[1-9]\d{0,99})?")
SPACING = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\[,;!: ]|[\s$]")
TEXT = re.compile(r"\\(?:text|mathrm|textbf)\s*\{([^{}]*)\}")


@dataclass(frozen=True)
class Estimate:
    """A mean over problems and its standard error; None with fewer than two problems."""

    mean: float
    standard_error: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of one value per problem, with sqrt(s^2 / Q), s^2 the sample variance over the Q problems."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Estimate(mean, None)
    return Estimate(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1) / count))


def average_at(correct: Sequence[bool]) -> float:
    """The share of a problem's samples that are correct."""
    return sum(correct) / len(correct)


def pass_at(correct: Sequence[bool], k: int) -> float:
    """The chance that k of the n samples, drawn without replacement, hold a correct one: 1 - C(n-c, k) / C(n, k).

    The unbiased estimator of arXiv 2107.03374. ValueError if k is above n.
    """
    n, c = len(correct), sum(correct)
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs {k} samples, got {n}")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def majority_at(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Whether the most frequent answer is correct; a tie counts each of the tied answers alike.

    A sample without an answer does not vote; a problem without any vote is wrong. Answers are one if they are written
    alike (`canonical`); where the verifier then differs within one answer, its share of correct samples counts.
    """
    votes = Counter(canonical(answer) for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    verdicts: dict[str, list[bool]] = {}
    for answer, verdict in zip(answers, correct, strict=True):
        if answer is not None and votes[canonical(answer)] == most:
            verdicts.setdefault(canonical(answer), []).append(verdict)
    return sum(average_at(found) for found in verdicts.values()) / len(verdicts)


def canonical(answer: str) -> str:
    """An answer for counting votes: spacing, dollars and \\text{} out, plain numbers by value ('1,000.0' is '1000')."""
    plain = SPACING.sub("", TEXT.sub(r"\1", answer)).rstrip(".").casefold()
    number = re.sub(r"(?<=\d),(?=\d{3}(\D|$))", "", plain)
    return str(Fraction(number)) if PLAIN_NUMBER.fullmatch(number) else plain


def paired_difference(one: Sequence[float], other: Sequence[float]) -> Estimate:
    """The mean of `one` - `other` over the same problems in the same order, with the standard error of that mean."""
    return estimate([a - b for a, b in zip(one, other, strict=True)])

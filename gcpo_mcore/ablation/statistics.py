"""Means with 95% confidence intervals over seeds, and the marginal effect of each factor."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy import stats

from gcpo_mcore.ablation.runs import Run

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean, the half-width of its 95% confidence interval (Student's t over n values; nan for one), and n."""

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width


@dataclass(frozen=True)
class Effect:
    """The change when `factor` goes from `base` to `level`, everything else the same."""

    factor: str
    base: str
    level: str
    difference: Estimate


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and interval of independent values (one per seed)."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Estimate(mean, math.nan, n)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    return Estimate(mean, float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation / math.sqrt(n), n)


def by_cell(runs: Sequence[Run]) -> dict[tuple[tuple[str, str], ...], list[Run]]:
    """Runs with the same factors together, seeds in order."""
    cells: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        cells.setdefault(tuple(run.factors.items()), []).append(run)
    return {factors: sorted(found, key=lambda r: r.seed) for factors, found in cells.items()}


def effects(runs: Sequence[Run], value: Callable[[Run], float]) -> list[Effect]:
    """The marginal effect of every factor: its first level against each other one.

    Runs that differ in nothing else, the seed included, are a pair. A seed's effect is the mean over its pairs; the
    interval is over seeds, because the pairs of one seed share their starter and their data.
    """
    found = []
    factors = list(dict.fromkeys(name for run in runs for name in run.factors))
    for factor in factors:
        levels = list(dict.fromkeys(run.factors[factor] for run in runs if factor in run.factors))
        table = {
            (run.seed, tuple((k, v) for k, v in run.factors.items() if k != factor), run.factors.get(factor)): value(
                run
            )
            for run in runs
        }
        for level in levels[1:]:
            by_seed: dict[int, list[float]] = {}
            for (seed, others, own), score in table.items():
                if own == level and (seed, others, levels[0]) in table:
                    by_seed.setdefault(seed, []).append(score - table[seed, others, levels[0]])
            if by_seed:
                means = [math.fsum(d) / len(d) for d in by_seed.values()]
                found.append(Effect(factor, levels[0], level, estimate(means)))
    return found


def effects_within(runs: Sequence[Run], value: Callable[[Run], float]) -> list[tuple[str, str, Effect]]:
    """The effects among the runs at one level of another factor, for all pairs: (other factor, its level, effect).

    Of two factors that meet in every combination these are the simple effects; where they differ between the levels of
    the other factor, a marginal effect says little.
    """
    found = []
    for other in dict.fromkeys(name for run in runs for name in run.factors):
        for level in dict.fromkeys(run.factors[other] for run in runs if other in run.factors):
            at_level = [run for run in runs if run.factors.get(other) == level]
            found += [(other, level, effect) for effect in effects(at_level, value)]
    return found

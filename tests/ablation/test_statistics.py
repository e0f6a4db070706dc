"""Intervals against the printed t table, effects against sums by hand."""

import math

import pytest

from gcpo_mcore.ablation.runs import Run
from gcpo_mcore.ablation.statistics import effects, effects_within, estimate

T_975 = {2: 12.706, 3: 4.303, 5: 2.776, 10: 2.262}  # of n - 1 degrees of freedom, by n


def run(seed: int, value: float, **factors: str) -> Run:
    return Run("r", seed, factors, 1, {"val/x/avg@1": [(0, 1.0), (1, value)]}, {})


def value(found: Run) -> float:
    return found.final("val/x/avg@1")


@pytest.mark.parametrize("n", T_975)
def test_interval_is_students(n):
    values = [math.sin(i) for i in range(n)]
    mean = sum(values) / n
    standard_error = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
    got = estimate(values)
    assert (got.mean, got.n) == (pytest.approx(mean), n)
    assert got.half_width == pytest.approx(T_975[n] * standard_error, rel=1e-3)
    assert (got.low, got.high) == (got.mean - got.half_width, got.mean + got.half_width)


def test_one_value_has_no_interval():
    assert math.isnan(estimate([0.5]).half_width)


def test_effects_pair_runs_that_differ_in_one_factor():
    runs = [
        run(0, 0.9, golden="on", kl="off"), run(0, 0.7, golden="on", kl="k3"),
        run(0, 0.2, golden="off", kl="off"), run(0, 0.1, golden="off", kl="k3"),
        run(1, 0.8, golden="on", kl="off"), run(1, 0.8, golden="on", kl="k3"),
        run(1, 0.0, golden="off", kl="off"), run(1, 0.3, golden="off", kl="k3"),
    ]  # fmt: skip
    golden, kl = effects(runs, value)
    assert (golden.factor, golden.base, golden.level, golden.difference.n) == ("golden", "on", "off", 2)
    by_seed = [(-0.7 - 0.6) / 2, (-0.8 - 0.5) / 2]
    assert golden.difference.mean == pytest.approx(sum(by_seed) / 2)
    assert kl.difference.mean == pytest.approx(((-0.2 - 0.1) / 2 + (0.0 + 0.3) / 2) / 2)
    assert kl.difference.half_width == pytest.approx(12.706 * abs(-0.15 - 0.15) / 2, rel=1e-3)


def test_effects_within_a_level_of_another_factor():
    runs = [run(seed, v, a=a, b=b) for seed, a, b, v in [
        (0, "x", "on", 0.9), (0, "y", "on", 0.5), (0, "x", "off", 0.1), (0, "y", "off", 0.3),
        (1, "x", "on", 0.7), (1, "y", "on", 0.5), (1, "x", "off", 0.1), (1, "y", "off", 0.2),
    ]]  # fmt: skip
    found = {(other, level, e.factor): e.difference.mean for other, level, e in effects_within(runs, value)}
    assert found == {
        ("a", "x", "b"): pytest.approx(-0.7),
        ("a", "y", "b"): pytest.approx(-0.25),
        ("b", "on", "a"): pytest.approx(-0.3),
        ("b", "off", "a"): pytest.approx(0.15),
    }
    assert effects_within([run(0, 1.0, a="x"), run(0, 0.5, a="y")], value) == []


def test_a_run_without_a_partner_counts_in_no_effect():
    (effect,) = effects([run(0, 1.0, a="x"), run(0, 0.5, a="y"), run(1, 0.1, a="y")], value)
    assert (effect.difference.mean, effect.difference.n) == (-0.5, 1)


def test_best_is_over_all_evaluations():
    assert (run(0, 0.3).final("val/x/avg@1"), run(0, 0.3).best("val/x/avg@1")) == (0.3, 1.0)

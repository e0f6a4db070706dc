"""Every figure against a reference that enumerates: all subsets, all ways to break a tie, plain textbook sums."""

import itertools
import math
import random
import statistics

import pytest

from gcpo_mcore.evaluation.estimators import (
    average_at,
    canonical,
    estimate,
    majority_at,
    paired_difference,
    pass_at,
)

VERDICTS = [list(v) for n in range(1, 7) for v in itertools.product([False, True], repeat=n)]


@pytest.mark.parametrize("k", range(1, 7))
def test_pass_at_is_the_share_of_all_subsets_with_a_correct_sample(k):
    compared = 0
    for correct in VERDICTS:
        if len(correct) < k:
            continue
        subsets = list(itertools.combinations(correct, k))
        assert pass_at(correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)
        compared += 1
    assert compared


def test_pass_at_1_is_the_average_and_k_above_n_is_refused():
    for correct in VERDICTS:
        assert pass_at(correct, 1) == pytest.approx(average_at(correct), abs=1e-12)
    with pytest.raises(ValueError):
        pass_at([True], 2)


def test_pass_at_is_unbiased():
    """The mean over many draws of n samples is 1 - (1 - p)^k; a plug-in estimate, 1 - (1 - c/n)^k, is not."""
    rng = random.Random(0)
    p, n, k, draws = 0.2, 8, 4, 20_000
    unbiased, plug_in = [], []
    for _ in range(draws):
        correct = [rng.random() < p for _ in range(n)]
        unbiased.append(pass_at(correct, k))
        plug_in.append(1 - (1 - sum(correct) / n) ** k)
    expected = 1 - (1 - p) ** k
    error = statistics.stdev(unbiased) / math.sqrt(draws)
    assert abs(statistics.mean(unbiased) - expected) < 4 * error
    assert abs(statistics.mean(plug_in) - expected) > 10 * error


def _majority_by_enumeration(answers: list, right: str) -> float:
    """The mean verdict over every order of the answers, where the first of the most frequent ones wins."""
    won = []
    for order in itertools.permutations([a for a in answers if a is not None]):
        most = max((order.count(a) for a in order), default=0)
        won.append(next((a == right for a in order if order.count(a) == most), False))
    return sum(won) / len(won)


def test_majority_with_ties_and_missing_answers():
    for n in range(1, 6):
        for answers in itertools.product(["7", "8", "9", None], repeat=n):
            correct = [a == "7" for a in answers]
            assert majority_at(answers, correct) == pytest.approx(_majority_by_enumeration(answers, "7"))


def test_majority_counts_different_spellings_as_one_answer():
    answers = ["1,000", "1000.0", r"$1000$", "5", "5"]
    assert majority_at(answers, [True, True, True, False, False]) == 1.0


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("0.5", "1/2", True),
        ("-3", "3", False),
        (r"\left( 1, 2 \right)", "(1,2)", True),
        ("1,000,000", "1000000", True),
        ("1,2", "12", False),
        ("(1,200)", "(1200)", False),
        (r"\frac{12}{3}", r"\frac{1}{23}", False),
        (r"\leftarrow", "arrow", False),
        (r"\text{B}", "b", True),
        (r"\frac{1}{2}", r"\frac{1}{3}", False),
        ("x = 5.", "x=5", True),
    ],
)
def test_canonical(one, other, same):
    assert (canonical(one) == canonical(other)) is same


def test_standard_error_is_the_textbook_one():
    values = [0.0, 0.25, 1.0, 0.5, 0.5]
    found = estimate(values)
    assert found.mean == pytest.approx(statistics.mean(values))
    assert found.standard_error == pytest.approx(statistics.stdev(values) / math.sqrt(5))
    assert estimate([0.3]).standard_error is None


def test_standard_error_covers_the_truth():
    """Of 2,000 evaluations with a known truth, about 95% lie within two standard errors."""
    rng = random.Random(1)
    inside = 0
    for _ in range(2000):
        problems = []
        for _ in range(60):
            p = rng.random()
            problems.append(average_at([rng.random() < p for _ in range(4)]))
        found = estimate(problems)
        inside += abs(found.mean - 0.5) < 2 * found.standard_error
    assert 0.93 < inside / 2000 < 0.975


def test_paired_difference_is_sharper_than_two_errors():
    rng = random.Random(2)
    other = [rng.random() for _ in range(200)]
    one = [v + 0.05 + 0.01 * rng.random() for v in other]
    found = paired_difference(one, other)
    assert found.mean == pytest.approx(statistics.mean(one) - statistics.mean(other))
    assert found.standard_error == pytest.approx(
        statistics.stdev(a - b for a, b in zip(one, other, strict=True)) / math.sqrt(200)
    )
    assert found.standard_error < estimate(one).standard_error / 20
    with pytest.raises(ValueError):
        paired_difference(one, other[:-1])

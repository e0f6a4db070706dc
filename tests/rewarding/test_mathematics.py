"""Answers are read whole or not at all; prose, echoes of the question. The verdicts on pairs: test_verifier_table."""

import json
import random
import string

import pytest

from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.mathematics.agreement import agree, is_read
from gcpo_mcore.rewarding.mathematics.answers import read
from gcpo_mcore.rewarding.mathematics.tree import UnreadableError
from tests.rewarding.test_verifier_table import CASES

BOXED = {"extraction": {"name": "boxed"}, "max_chars": 2000}
WHOLE = {"extraction": {"name": "whole"}, "max_chars": 2000}


def score(settings, response, reference, prompt=""):
    return rewards.get("math_verify").model_validate(settings)([Answer(prompt, response, reference)])[0]


READ = sorted({c["gold"] for c in CASES if is_read(c["gold"])})
TAILS = [
    "?",
    r"\text{ if } n \text{ is odd}",
    r"\text{ or } 7",
    r"\operatorname{foo}",
    r"\cdots",
    "^",
    r"\ne 1",
    "}",
    "\\",
    r"\pmod 7",
]


@pytest.mark.parametrize("tail", TAILS)
def test_an_answer_with_something_behind_it_is_another_one(tail):
    """Whatever it is that is read, with a tail that changes it, it is not the answer any more."""
    assert len(READ) > 300
    wrong = [gold for gold in READ if agree(gold, gold + tail)]
    assert wrong == []


@pytest.mark.parametrize(
    "text", [r"\foo", r"\foo{2}", "2 3", "1/2x", r"\sin x/2", "2^3^2", "3!!", r"\frac{1}{}", "(1", "[1,2", "x^", "+"]
)
def test_what_is_not_read_is_refused(text):
    with pytest.raises(UnreadableError):
        read(text)


def test_every_reference_agrees_with_itself_as_it_is_written():
    assert [c["gold"] for c in CASES if not agree(c["gold"], c["gold"])] == []
    assert [c["gold"] for c in CASES if not agree(c["gold"], f" ${c['gold']}$ ")] == []


def test_random_text_is_read_or_refused_and_never_anything_else():
    r = random.Random(0)
    macros = r"\frac \sqrt \text \pi \pm \cup \infty \sin \log \sum \int \left \right \begin \end \circ \in \ne"
    pieces = [*string.digits, *"abixyeABC+-*/^_(){}[]|!%,.;:=<> $'", *(f"{m} " for m in macros.split(" "))]
    for _ in range(5000):
        text = "".join(r.choice(pieces) for _ in range(r.randint(1, 25)))
        assert agree(text, text)
        agree("42", text)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1/3^{60}", "1/3^{61}"),
        ("1/20!", "1/21!"),
        ("e^{-50}", "e^{-51}"),
        ("e^{-1000}", "e^{-1001}"),
        ("e^{-50}x", "e^{-51}x"),
        (r"\sqrt{2}\cdot 10^{-80}", r"\sqrt{3}\cdot 10^{-80}"),
        (r"e^{\pi\sqrt{163}}", "262537412640768744"),
        ("10^{-100}", "0"),
        ("(1+10^{-30})^2", "1+2\\cdot 10^{-30}"),
    ],
)
def test_small_differences_are_differences(left, right):
    assert not agree(left, right) and not agree(right, left)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (r"(\sqrt2+\sqrt3)^2-5", r"2\sqrt6"),
        (r"(\sqrt2+\sqrt3)^2-5-2\sqrt6", "0"),
        (r"\frac{1}{\sqrt[3]{2}-1}", r"1+\sqrt[3]{2}+\sqrt[3]{4}"),
        (r"\cos\frac{\pi}{7}-\cos\frac{2\pi}{7}+\cos\frac{3\pi}{7}", r"\frac12"),
        (r"\sqrt[3]{2+\sqrt5}+\sqrt[3]{2-\sqrt5}", "1"),
    ],
)
def test_values_that_only_many_digits_show_to_be_equal(left, right):
    assert agree(left, right) and agree(right, left)


@pytest.mark.parametrize(
    ("response", "reference", "expected"),
    [
        ("The final answer is $42$.", "42", 1.0),
        ("The answer is 42, because 6 * 7 = 42.", "42", 1.0),
        ("**Answer:** $\\frac{1}{2}$", "0.5", 1.0),
        ("I think it is 42.", "42", 1.0),
        ("The answer is 42 or 43.", "42", 0.0),
        ("It is 42, or maybe 43.", "43", 0.0),
        ("So $x=3$ or $x=4$.", "4", 0.0),
        ("So $x=3$ or $x=4$.", "3, 4", 1.0),
        ("The answer is not 42.", "42", 0.0),
        ("The answer is 42 if x > 0", "42", 0.0),
        ("no idea", "42", 0.0),
    ],
)
def test_prose(response, reference, expected):
    assert score(WHOLE, response, reference) == expected


@pytest.mark.parametrize(
    ("prompt", "answer", "reference", "expected"),
    [
        ("What is 6 * 7?", r"6 \cdot 7", "42", 0.0),
        ("What is 6 * 7?", "42", "42", 1.0),
        ("What is 6 * 7?", r"6 \cdot 7 = 42", "42", 1.0),
        ("What is 16 * 7?", r"6 \cdot 7", "42", 1.0),
        ("Simplify 2/4.", r"\frac{2}{4}", "1/2", 0.0),
        ("Expand $(x+1)^2$.", "(x+1)^2", "x^2+2x+1", 0.0),
        ("Which is larger, $2^{10}$ or $10^3$?", "2^{10}", "2^{10}", 1.0),
        ("Is 0.75 more than 3/4?", "3/4", "0.75", 1.0),
        ("Write $2x+y=5$ as $y=mx+b$.", "2x+y=5", "y=-2x+5", 0.0),
    ],
)
def test_the_question_is_no_answer(prompt, answer, reference, expected):
    assert score(BOXED, rf"\boxed{{{answer}}}", reference, prompt) == expected


def test_an_answer_longer_than_the_limit_is_not_read_from_its_middle():
    settings = BOXED | {"max_chars": 10}
    assert score(settings, r"\boxed{1234567890123 + 42}", "42") == 0.0
    assert score(settings, r"\boxed{42}", "42") == 1.0


def test_the_reward_says_which_references_it_compares_as_text():
    reward = rewards.get("math_verify").model_validate(BOXED)
    assert [reward.doubt(r) for r in ("42", r"\frac12", "(B)", "yes", r"\{1,2\}")] == [None] * 5
    assert "as text" in reward.doubt(r"12\text{ if } n \text{ is odd}")
    assert "as text" in reward.doubt(r"1,3,5,\ldots")


def test_nothing_of_an_answer_is_run_and_its_cost_is_bounded():
    for bomb in (
        "9^{9^{9^9}}",
        "99999999!",
        r"\sum_{i=1}^{999999999} i^i",
        "(" * 5000,
        r"\binom{9999999}{99999}",
        "10^{10^{10}}",
    ):
        assert not agree("42", bomb) and agree(bomb, bomb)
    assert json.dumps(score(BOXED, r"\boxed{__import__('os').system('x')}", "42")) == "0.0"

"""Each built-in reward, called as a plain object."""

import pytest

from gcpo_mcore.registry import rewards
from gcpo_mcore.rewarding.answer import Answer


def score(name, settings, response, reference="42"):
    (value,) = rewards.get(name).model_validate(settings)([Answer("q", response, reference)])
    return value


EXACT = {"extraction": {"name": "after_last", "marker": ":"}, "ignore_case": False, "ignore_commas": False}


@pytest.mark.parametrize(
    ("knobs", "response", "reference", "expected"),
    [
        ({}, "carry 1: 125 ", "125", 1.0),
        ({}, "carry 1: 124", "125", 0.0),
        ({}, "125", "125", 0.0),
        ({}, ": b", "B", 0.0),
        ({"ignore_case": True}, ": b", "B", 1.0),
        ({}, ": 1,234", "1234", 0.0),
        ({"ignore_commas": True}, ": 1,234", "1234", 1.0),
    ],
)
def test_exact_match(knobs, response, reference, expected):
    assert score("exact_match", EXACT | knobs, response, reference) == expected


MATH = {"extraction": {"name": "boxed"}, "max_chars": 2000}


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("42", "42", 1.0),
        ("+42", "42", 1.0),
        ("1,234", "1234", 1.0),
        ("43", "42", 0.0),
        ("0.5", "1/2", 1.0),
        ("0.333333", "1/3", 1.0),  # math-verify rounds to six digits
        (r"\frac{1}{2}", "0.5", 1.0),
        (r"\frac12", r"\frac{2}{4}", 1.0),
        (r"2\sqrt{3}", r"\sqrt{12}", 1.0),
        (r"\{2, 1\}", r"\{1,2\}", 1.0),
        (r"(1, 2)", r"(2, 1)", 0.0),
        ("2", "3x+2", 0.0),
        ("3x+2", "$2+3x$", 1.0),
        ("x=3", "3", 1.0),
        ("nonsense", "42", 0.0),
        ("1/0", "42", 0.0),
    ],
)
def test_math_verify(answer, reference, expected):
    assert score("math_verify", MATH, rf"so \boxed{{{answer}}}.", reference) == expected


def test_math_verify_reads_prose_where_the_rule_gives_prose():
    assert score("math_verify", MATH | {"extraction": {"name": "whole"}}, "The final answer is $42$.") == 1.0


def test_math_verify_without_an_answer_is_zero():
    assert score("math_verify", MATH, "no box") == 0.0


def test_math_verify_parses_only_the_tail():
    padded = "1 + " * 10_000 + "0"
    assert score("math_verify", MATH | {"max_chars": 10}, rf"\boxed{{{padded}}}") == 0.0


@pytest.mark.parametrize(
    ("response", "expected"),
    [("<think>a\nb</think> 4", 1.0), ("x<think>a</think> 4", 0.0), ("<think>a", 0.0), ("", 0.0)],
)
def test_format_matches_end_to_end(response, expected):
    assert score("format", {"pattern": r"<think>.*</think>.+"}, response) == expected

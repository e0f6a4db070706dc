"""Each built-in reward, called as a plain object."""

import pytest

from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Answer


def score(name, settings, response, reference="42", **fields):
    (value,) = rewards.get(name).model_validate(settings)([Answer("q", response, reference, **fields)])
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


ANSWERS = [
    ("exact_match", EXACT, ": {}"),
    ("math_verify", MATH, r"\boxed{{{}}}"),
    ("numeric", {"extraction": {"name": "whole"}, "absolute_tolerance": 0, "relative_tolerance": 0}, "{}"),
    ("multiple_choice", {"extraction": {"name": "whole"}}, "{}"),
]


@pytest.mark.parametrize(("name", "settings", "response"), ANSWERS, ids=[a[0] for a in ANSWERS])
def test_one_of_several_references_is_enough(name, settings, response):
    first, second, neither = "ABC" if name == "multiple_choice" else "123"
    for given, expected in ((first, 1.0), (second, 1.0), (neither, 0.0)):
        assert score(name, settings, response.format(given), first, other_references=(second,)) == expected


READ = [
    ("10^5", "100000"), ("1.5 x 10^3 of them", "1500"), (r"2\times10^{-2}", "0.02"), ("3*10**2", "300"),
    ("1 / 3", "1/3"), ("1 1 / 2", "1.5"), ("2½", "2.5"), ("½", "0.5"), (r"\frac{1}{2}", "0.5"),
    (r"-2\dfrac{1}{2}", "-2.5"),
]  # fmt: skip
CUT = [  # a part of what stands there
    ("10^5", "5"), ("1.5 x 10^3", "3"), ("1 / 3", "3"), ("1 1 / 2", "2"), ("2½", "2"), (r"\frac{1}{2}", "2"),
    ("5²", "5"), ("2^3", "3"), ("2**3", "3"), ("2^{3}", "2"), ("√3", "3"), (r"\sqrt{3}", "3"),
    (r"\sqrt[4]{3}", "3"), ("2.5.1", "1"),
]  # fmt: skip
NUMERIC = {"extraction": {"name": "last_number"}, "absolute_tolerance": 0.0, "relative_tolerance": 0.0}


@pytest.mark.parametrize(
    ("knobs", "response", "reference", "expected"),
    [
        ({}, "48 + 24 = 72 clips.", "72", 1.0),
        ({}, "it costs $1,234.50", "1234.5", 1.0),
        ({}, "a half, 0.50", "1/2", 1.0),
        ({}, "0.1", "10%", 1.0),
        ({}, "10", "10%", 1.0),
        ({}, "10%", "0.1", 1.0),
        ({}, "100", "10%", 0.0),
        ({}, "0.333", "1/3", 0.0),
        ({"absolute_tolerance": 0.001}, "0.333", "1/3", 1.0),
        ({"relative_tolerance": 0.01}, "99", "100", 1.0),
        ({"relative_tolerance": 0.01}, "-99", "100", 0.0),
        ({"relative_tolerance": 0.01}, "98.9", "100", 0.0),
        *(({}, text, reference, 1.0) for text, reference in READ),
        *(({}, text, reference, 0.0) for text, reference in CUT),
        ({}, "about 1e5", "5", 0.0),
        ({}, "about 1e5", "100000", 1.0),
        ({}, "2 1/2", "1/2", 0.0),
        ({}, "2 1/2", "2.5", 1.0),
        ({}, "2 5/3", "5/3", 0.0),
        ({}, "1.2.3", "3", 0.0),
        ({}, "no number", "1", 0.0),
        ({}, "1/0", "1", 0.0),
        ({}, "9" * 1000, "1", 0.0),
    ],
)
def test_numeric(knobs, response, reference, expected):
    assert score("numeric", NUMERIC | knobs, response, reference) == expected


def test_numeric_refuses_a_reference_that_is_no_number():
    with pytest.raises(ValueError, match="'a dozen' is not a number"):
        score("numeric", NUMERIC, "12", "a dozen")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("B", 1.0),
        ("(b)", 1.0),
        (r"\textbf{(B)}\ 42", 1.0),
        ("B) the sea", 1.0),
        ("The correct answer is (B).", 1.0),
        ("A", 0.0),
        ("(A) or (B)", 0.0),
        ("B and C", 0.0),
        ("B) or C) or D)", 0.0),
        ("(B) or C", 0.0),
        ("B. Or maybe A", 0.0),
        ("(B) A dog", 1.0),
        ("Because", 0.0),
        ("a dog", 0.0),
        ("", 0.0),
    ],
)
def test_multiple_choice(response, expected):
    assert score("multiple_choice", {"extraction": {"name": "whole"}}, response, "(B)") == expected


@pytest.mark.parametrize(
    ("tokens", "expected"), [(1, 0.0), (75, 0.0), (76, -0.04), (99, -0.96), (100, -1.0), (101, -1.0), (10**6, -1.0)]
)
def test_overlong_is_dapos_equation_13(tokens, expected):
    assert score("overlong", {"max_tokens": 100, "cache_tokens": 25}, "x", response_tokens=tokens) == expected


def test_overlong_refuses_a_slope_wider_than_the_limit():
    with pytest.raises(ValueError, match="cache_tokens 11 is more than max_tokens 10"):
        rewards.get("overlong").model_validate({"max_tokens": 10, "cache_tokens": 11})


@pytest.mark.parametrize(
    ("unit", "ngram", "text", "expected"),
    [
        ("words", 2, "a b c d", 0.0),
        ("words", 2, "a b a b", -1 / 3),  # ab, ba, ab
        ("words", 3, "a b", 0.0),
        ("words", 1, "so " * 100, -0.99),
        ("characters", 2, "aaaaa", -0.75),
        ("characters", 2, "", 0.0),
    ],
)
def test_repetition(unit, ngram, text, expected):
    assert score("repetition", {"unit": unit, "ngram": ngram}, text) == pytest.approx(expected)

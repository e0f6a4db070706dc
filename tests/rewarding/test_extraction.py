"""Where the answer is in a response."""

import pytest
from pydantic import TypeAdapter, ValidationError

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.rewarding.extraction import Extraction


def rule(**settings):
    return TypeAdapter(Extraction).validate_python(settings)


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({"name": "whole"}, "  42\n", "42"),
        ({"name": "whole"}, " \n", None),
        ({"name": "after_last", "marker": ":"}, "carry 1: tens: 125 ", "125"),
        ({"name": "after_last", "marker": "####"}, "so 6*7\n#### 42\n", "42"),
        ({"name": "after_last", "marker": ":"}, "no marker", None),
        ({"name": "after_last", "marker": ":"}, "cut off:", None),
        ({"name": "after_think"}, "<think>a</think>b</think> c ", "c"),
        ({"name": "after_think"}, "<think>never ends", None),
        ({"name": "after_think"}, "<think>x</think>", None),
        ({"name": "last_number"}, "6 * 7 = 42.", "42"),
        ({"name": "last_number"}, "so -1,234.50%, I think", "-1,234.50%"),
        ({"name": "last_number"}, "x = 3-5", "5"),
        ({"name": "last_number"}, "x = -5", "-5"),
        ({"name": "last_number"}, "that is $12", "$12"),
        ({"name": "last_number"}, "3/4, of course", "3/4"),
        ({"name": "last_number"}, "about 1e5 of them", "1e5"),
        ({"name": "last_number"}, "or -2.5E-3", "-2.5E-3"),
        ({"name": "last_number"}, "it takes 2 1/2 hours", "2 1/2"),
        ({"name": "last_number"}, "2 of 3 and 4", "4"),
        ({"name": "last_number"}, "version 1.2.3", "1.2.3"),
        ({"name": "last_number"}, "3/4/5", "3/4/5"),
        ({"name": "last_number"}, "1e1000", "1e1000"),
        ({"name": "last_number"}, "none", None),
        ({"name": "last_number"}, "<think>5</think> none", None),
        ({"name": "last_number"}, "<think>maybe 5", None),
        ({"name": "last_number"}, "1," * 50_000 + "x", "1," * 49_999 + "1"),  # in one pass
        ({"name": "boxed"}, r"so \boxed{42}.", "42"),
        ({"name": "boxed"}, r"\boxed{1} then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ({"name": "boxed"}, r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ({"name": "boxed"}, r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        ({"name": "boxed"}, r"\boxed{1} and then \boxed{2", "1"),
        ({"name": "boxed"}, r"\boxed{ }", None),
        ({"name": "boxed"}, "42", None),
        ({"name": "boxed"}, r"<think>\boxed{1}</think> \boxed{2}", "2"),
        ({"name": "boxed"}, r"<think>\boxed{1}</think> two", None),
        ({"name": "boxed"}, r"\boxed{1}</think> two", None),
        ({"name": "boxed"}, r"<think>maybe \boxed{1}, or", None),
        ({"name": "boxed"}, r"\boxed{\boxed{2}}", "2"),
        ({"name": "boxed"}, r"} { \boxed{3} }", "3"),
        ({"name": "boxed"}, r"\boxed{1} or \boxed{2}", "1, 2"),
        ({"name": "boxed"}, r"$\boxed{1}$, $\boxed{2}$ and $\boxed{3}$.", "1, 2, 3"),
        ({"name": "boxed"}, r"\boxed{1}\text{ or }\boxed{2}", "1, 2"),
        ({"name": "boxed"}, r"\boxed{2}, \boxed{2}", "2"),
        ({"name": "boxed"}, r"\boxed{1}, no: \boxed{2}", "2"),
        ({"name": "boxed"}, r"\boxed{1}," * 20_000, "1"),  # in one pass
        ({"name": "boxed"}, r"\\boxed{4}", "4"),
        ({"name": "boxed"}, "\\boxed{" * 100_000, None),  # in one pass
    ],
)
def test_extraction(settings, text, expected):
    assert rule(**settings)(text) == expected


def test_unknown_name_lists_the_known_and_the_nearest():
    with pytest.raises(UserError, match=r"unknown extraction 'box' \(nearest: boxed\); known: after_last, after_think"):
        rule(name="box")


def test_a_wrong_knob_is_named():
    with pytest.raises(ValidationError, match="marker"):
        rule(name="after_last", marker="")
    with pytest.raises(ValidationError, match="marker"):
        rule(name="whole", marker=":")


@pytest.mark.parametrize("name", Extraction.options)
def test_a_rule_finds_what_it_has_wrapped(name):
    made = rule(name=name, **({"marker": "####"} if name == "after_last" else {}))
    assert made(made.wrap("42")) == "42"

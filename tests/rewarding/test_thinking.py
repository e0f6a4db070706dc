"""Thinking is found wherever its tags are: in the response, in the prompt, or before the part that a reward sees."""

import numpy as np
import pytest

from gcpo_mcore.rewarding.config import RewardConfig
from gcpo_mcore.rewarding.extraction import Extraction
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.rewarding.thinking import shown_response, spoken
from gcpo_mcore.run.load import load_config
from gcpo_mcore.samples import Prompt, Sample

OPENED, CLOSED = "1+1?\n<think>\n", "1+1?\n<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("prompt", "response", "shown"),
    [
        ("1+1?", "7", "7"),
        ("put it in <think> tags: 1+1?", "7", "7"),
        (CLOSED, "7", "7"),
        (OPENED, "7", "<think>7"),
        (OPENED, "a</think>7", "<think>a</think>7"),
        (OPENED, "<think>a</think>7", "<think>a</think>7"),
    ],
)
def test_a_prompt_that_opens_the_thinking(prompt, response, shown):
    assert shown_response(prompt, response, 100) == shown


@pytest.mark.parametrize("chars", range(1, 40))
@pytest.mark.parametrize("prompt", ["1+1?", OPENED])
@pytest.mark.parametrize("response", ["<think>ab 12 </think> then \\boxed{34}", "<think>ab 12 c \\boxed{34}"])
def test_a_cut_response_is_still_known_to_think(prompt, response, chars):
    """Whatever the cut leaves, a reward that strips thinking finds what it finds in the whole, or the end of it."""
    whole, cut = (spoken(shown_response(prompt, response, n)) for n in (100, chars))
    assert cut is None if whole is None else cut is not None and whole.endswith(cut)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", "7"),
        ("<think>7", None),
        ("<think>a</think> 7 ", "7"),
        ("<think>a</think>7<think>8", None),
        ("a</think>", ""),
    ],
)
def test_spoken(text, expected):
    assert spoken(text) == expected


RULES = [{"name": "whole"}, {"name": "after_last", "marker": ":"}, {"name": "boxed"}, {"name": "last_number"}]
RULES += [{"name": "after_think"}, {"name": "after_last", "marker": "</think>"}]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("prompt", ["1+1?", OPENED])
def test_no_reward_takes_an_answer_from_the_thinking(rule, prompt):
    assert {rule["name"] for rule in RULES} == set(Extraction.options)
    said = {"boxed": r"\boxed{7}", "after_last": ": 7"}.get(rule["name"], "7")
    right = "7" if rule.get("marker") == "</think>" else said
    begin = "" if prompt == OPENED else "<think>"
    for reward in ("exact_match", "math_verify", "numeric"):
        plain = load_config([f"reward={reward}", "reward.workers=1"]).reward.plain()
        plain["parts"][reward]["settings"]["extraction"] = rule
        with Grader(RewardConfig.model_validate(plain)) as grader:
            for response in (f"{begin}or {said}", f"{begin}or {said}</think>"):
                assert not graded(grader, prompt, response).is_accurate, (reward, response)
            assert graded(grader, prompt, f"{begin}or 8</think>{right}").is_accurate, reward


def graded(grader: Grader, prompt: str, response: str) -> Sample:
    sample = Sample(0, np.zeros(1, np.int32), response)
    grader.grade([(Prompt("a:0", "a", prompt, [5], "7"), sample)])
    return sample


def test_a_form_may_ask_for_both_tags():
    config = load_config(
        ["reward=math_verify", "reward.parts.format.settings.pattern='<think>.*</think>.*'", "reward.workers=1"]
    ).reward
    with Grader(config) as grader:
        assert graded(grader, OPENED, r"a</think>\boxed{7}").reward_parts["format"] == 1.0
        assert graded(grader, CLOSED, r"\boxed{7}").reward_parts["format"] == 0.0

"""What is said of reference answers before a run trains."""

import logging

import pytest

from gcpo_mcore.rewarding.references import doubter, warn_of_doubtful
from gcpo_mcore.run.load import load_config
from gcpo_mcore.samples import Prompt


def prompt(number, answer, *others):
    return Prompt(f"train:{number}", "train", "q", [1], answer, other_answers=others)


def test_the_count_and_the_rows_of_references_compared_as_text(caplog):
    config = load_config(["reward=math_verify"]).reward
    odd = r"12\text{ if } n \text{ is odd}"
    prompts = [
        prompt(0, "42"),
        prompt(1, odd),
        prompt(2, r"\frac12", r"1,3,\ldots"),
        *(prompt(n, odd) for n in range(3, 9)),
    ]
    with caplog.at_level(logging.WARNING):
        warn_of_doubtful(config, {"train": prompts, "fine": [prompt(0, "1")]})
    (said,) = caplog.messages
    assert said.startswith("train: 8 reference answers are compared as text only")
    assert (
        "train:1 ('12\\\\text{ if }" in said and "train:2" in said and said.endswith(", ...") and "train:8" not in said
    )


def test_a_sample_of_a_large_source_is_looked_at_and_it_is_said(caplog):
    config = load_config(["reward=math_verify"]).reward
    prompts = [prompt(n, r"12\text{ if } n \text{ is odd}" if n % 4 == 0 else "42") for n in range(40)]
    with caplog.at_level(logging.WARNING):
        warn_of_doubtful(config, {"train": prompts}, looked_at=20)  # every second
    (said,) = caplog.messages
    assert said.startswith("train: 10 reference answers (of 20 looked at, of 40) are compared as text only")


@pytest.mark.parametrize("reward", ["exact_match", "remote", "numeric"])
def test_a_reward_without_doubts_has_none(reward):
    assert doubter(load_config([f"reward={reward}"]).reward)(prompt(0, "anything")) is None

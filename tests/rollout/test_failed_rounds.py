"""A reward that can grade nothing stops a run or an evaluation, with its own words and a sample."""

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.rollout.embedded import EmbeddedEngine
from gcpo_mcore.rollout.sampler import Sampler
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import process_group
from gcpo_mcore.samples import Fragment, Prompt, Sample
from tests.launching import launch

MESSAGE = (
    r"^phase grade: in 3 rounds in a row not one of 2 samples could be graded \(reward\.max_failed_rounds\); "
    r"the first: multiple_choice: ValueError: the reference answer '12' is not the letter of a choice "
    r"\(prompt p:0, reference '12', response 'A'\)$"
)


@pytest.fixture
def sampler(tiny_models):
    """One that grades and never samples: two samples in a round, of a row whose reference answer is a letter or not."""
    config, folder = load_config(["reward=multiple_choice", "reward.workers=1"]), str(tiny_models["qwen2-tied"])
    with process_group(1, 900), Grader(config.reward) as grader:
        engine = EmbeddedEngine(config.rollout, folder, "float32", [1], str)
        yield Sampler(engine, grader, seed=0)


def grade(sampler: Sampler, reference: str) -> None:
    prompt = Prompt("p:0", "p", "", [5], reference)
    sampler.grade([Fragment(prompt, [Sample(i, [1], "A") for i in range(2)])], [])


def test_it_takes_several_in_a_row(sampler):
    for reference in ("12", "12", "A", "12", "12"):
        grade(sampler, reference)
    with pytest.raises(UserError, match=MESSAGE):
        grade(sampler, "12")


def test_a_run_ends(carry, tmp_path):
    """The reference answers of the task are no letters: it trained to its end before, with a reward of 0."""
    done = launch(
        "tools/train.py", f"prepared={carry}", f"model.path={carry}/init", f"run.folder={tmp_path}", "run.name=r",
        "algorithm=grpo", "reward=multiple_choice", "trainer.steps=9", "trainer.prompts_per_step=2",
        "trainer.samples_per_prompt=2", "evaluation.every_steps=0", "evaluation.at_start=false",
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "error: phase grade: in 3 rounds in a row not one of 4 samples could be graded" in done.stderr
    assert "is not the letter of a choice" in done.stderr and ", response '" in done.stderr

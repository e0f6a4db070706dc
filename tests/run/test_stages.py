"""Supervised training and then another algorithm in one run: where it stands, what it draws, and that it resumes."""

import json
from pathlib import Path

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.monitor.metrics import read_metrics
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.stages import Stages
from tests.launching import run
from tests.run.test_resume import assert_same, outcome

TWO = ["algorithm=gcpo_reach", "stages=supervised", "stages.supervised.steps=3", "trainer.steps=5"]
UNTIL = "stages.supervised.until={metric: golden/logp_min, at_least: -3}"


def stages(*more: str) -> Stages:
    return Stages(load_config([*TWO, "trainer.updates_per_step=2", *more]), speaks=True)


def test_stages_end_by_count():
    at = stages()
    assert (at.config.algorithm.name, at.only_golden_rows, at.is_last, at.last_step) == ("sft", True, False, 3)
    assert at.config.optimizer.schedule == "constant" and at.config.optimizer.weight_decay == 0.0
    assert [at.end(step, {}) for step in (1, 2, 3)] == [False, False, True]
    assert (at.config.algorithm.name, at.only_golden_rows, at.is_last, at.last_step) == ("gcpo_reach", False, True, 5)
    assert at.config.optimizer.schedule == "linear"
    assert not at.end(5, {})


def test_updates_are_counted_within_a_stage():
    at = stages()
    assert [at.updates_done(step, number) for step in (1, 3) for number in (0, 1)] == [(0, 6), (1, 6), (4, 6), (5, 6)]
    at.end(3, {})
    assert [at.updates_done(step, number) for step in (4, 5) for number in (0, 1)] == [(0, 4), (1, 4), (2, 4), (3, 4)]


@pytest.mark.parametrize("value, ends", [(-3.5, False), (-3.0, True), (float("nan"), False), (None, False)])
def test_a_condition_ends_a_stage_early(value, ends):
    at = stages(UNTIL)
    assert at.end(1, {} if value is None else {"golden/logp_min": value}) == ends
    assert at.last_step == (5 if ends else 3)
    assert at.updates_done(2, 0) == ((0, 8) if ends else (2, 6))


def test_a_condition_that_was_never_measured_is_said(caplog):
    at = stages(UNTIL)
    at.end(3, {})
    assert "no step had the metric golden/logp_min" in caplog.text


def test_the_state_is_restored_and_older_checkpoints_have_none():
    at = stages()
    at.end(3, {})
    other = stages()
    other.restore(json.loads(json.dumps(at.state())))
    assert (other.number, other.begun_after) == (1, 3)
    other.restore(None)
    assert (other.number, other.begun_after) == (0, 0)
    with pytest.raises(UserError, match="training stage 3, this run has 1"):
        other.restore({"number": 3, "begun_after": 0, "was_measured": False})


REFUSED = {
    "trainer.steps=3": r"take 3 steps, but trainer\.steps=3",
    "stages.supervised.until={metric: loss, at_least: 0}": r"until\.metric=loss: a condition is on a metric of golden/",
    "stages.supervised.until={metric: val/hrad/avg@1, at_least: 0.5}": r"not measured \(nearest: val/hard/avg@1\)",
    "stages.supervised.algorithm.filter.keeps=1": r"unknown key",
    "algorithm/advantage@stages.supervised.algorithm.advantage=group": r"stages\.supervised: algorithm\.golden=only",
}


@pytest.mark.parametrize("override", REFUSED)
def test_a_wrong_stage_is_one_line(override):
    with pytest.raises(UserError, match=REFUSED[override]):
        load_config([*TWO, override])


def test_older_weights_are_corrected_in_every_stage():
    config = load_config([*TWO, "rollout=sglang", "rollout.max_staleness=1"])
    assert [each.mismatch.name for each in config.algorithms] == ["tis", "tis"]


# --- real runs ------------------------------------------------------------------------------------------------------


def options(carry: Path, folder: Path, *more: str) -> list[str]:
    return [
        f"prepared={carry}", f"model.path={carry}/init", f"run.folder={folder}", "run.name=r", *TWO,
        "trainer.prompts_per_step=6", "trainer.samples_per_prompt=4", "trainer.checkpoint_every_steps=1",
        "data.train.hard.max_golden_rows=2", "evaluation.every_steps=0", "evaluation.at_start=false",
        "monitor.trackers=[]", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(carry, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    run("tools/train.py", *options(carry, folder))
    return folder


def test_a_run_of_two_stages(whole):
    lines = read_metrics(whole / "r")
    assert [line["stage/number"] for line in lines] == [1, 1, 1, 2, 2]
    assert [line["rollout/tokens"] > 0 for line in lines] == [False] * 3 + [True] * 2
    assert all(line["golden/imitated_fraction"] == 1 for line in lines[3:])  # the untrained model reaches none
    assert all(0 < line["golden/token_mass"] < 1 for line in lines[3:])
    assert all(line["golden/token_mass"] == 1 and line["golden/logp_min"] < -3 for line in lines[:3])
    assert [line["groups/golden_injected"] for line in lines[:3]] == [6, 6, 6]  # each prompt drawn has one
    assert [line["actor/lr"] for line in lines] == pytest.approx([3e-4] * 4 + [3e-5])
    drawn = [json.loads(line) for line in (whole / "r/rollouts/step_000001.jsonl").read_text().splitlines()]
    assert {each["prompt_id"] for each in drawn if "hard" in each["prompt_id"]} <= {"hard:0", "hard:1"}


def test_the_cost_is_what_went_through_the_model(whole, carry):
    """Prompt and response tokens of the records, which are written from the samples themselves."""
    lines = read_metrics(whole / "r")
    for line in lines:
        file = whole / f"r/rollouts/step_{line['step']:06d}.jsonl"
        rows = [json.loads(row) for row in file.read_text().splitlines()]
        trained = sum(len(row["prompt"]) + row["tokens"] for row in rows)  # a token of this task is a character
        assert line["cost/trained_tokens"] == trained
        golden = sum(len(row["prompt"]) + row["tokens"] for row in rows if row["is_golden"])
        scored = golden if line["step"] > 3 else 0  # the gate's; one update a step, no KL
        assert line["cost/scored_tokens"] == scored
        assert line["cost/sampled_tokens"] == line["rollout/tokens"]
        assert line["cost/tokens"] == trained + scored + line["rollout/tokens"]


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_stop_within_and_at_the_end_of_a_stage_is_bitwise(stop, carry, whole, tmp_path):
    run("tools/train.py", *options(carry, tmp_path, f"trainer.stop_at_step={stop}"))
    state = json.loads((tmp_path / f"r/checkpoints/step_{stop:06d}/state.json").read_text())
    assert state["stage"]["number"] == (stop >= 3)
    run("tools/train.py", *options(carry, tmp_path))
    last = json.loads((tmp_path / "r/checkpoints/step_000005/state.json").read_text())
    assert last["imitated_prompts"] and all(":" in prompt_id for prompt_id in last["imitated_prompts"])
    assert_same(outcome(tmp_path), outcome(whole))

"""A run with guidance: its rows are the golden answer's prefix and what came after it; it resumes to the bit."""

import json

from gcpo_mcore.monitor.metrics import read_metrics
from tests.launching import run
from tests.run.test_resume import TRAIN, assert_same, options, outcome

GUIDED = ("algorithm=guided_gcpo", "algorithm.guide.change=0.2")


def test_guided_groups_are_trained_on_and_what_is_given_outlives_a_stop(carry, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(TRAIN, *options(carry, whole, 4, *GUIDED, "data.train.hard.max_rows=4", "data.train.easy.max_rows=4"))
    small = ["data.train.hard.max_rows=4", "data.train.easy.max_rows=4"]
    run(TRAIN, *options(carry, parts, 4, *GUIDED, *small, "trainer.stop_at_step=2"))
    run(TRAIN, *options(carry, parts, 4, *GUIDED, *small))
    assert_same(outcome(whole), outcome(parts))
    for line in read_metrics(whole / "r"):
        assert line["cost/sampled_tokens"] == line["rollout/tokens"] + line.get("guide/tokens", 0)
        assert line["guide/groups"] == 4  # the untrained model solves none by itself
    golden = {}
    for file in sorted((whole / "r/rollouts").glob("*.jsonl")):
        for sample in map(json.loads, file.read_text().splitlines()):
            if sample["is_golden"]:
                golden[sample["prompt_id"]] = sample["response"]  # whole, though its row is the rest alone
    for sample in map(json.loads, (whole / "r/rollouts/step_000001.jsonl").read_text().splitlines()):
        given = sample["guided_tokens"]
        assert given > 0 and sample["response"][:given] == golden[sample["prompt_id"]][:given]  # a character is a token

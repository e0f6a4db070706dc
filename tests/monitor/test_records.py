"""The readable rollouts of a step."""

import json

import numpy as np

from gcpo_mcore.monitor.config import MonitorConfig
from gcpo_mcore.monitor.records import record, write_records, write_token_values
from gcpo_mcore.samples import Facts, Group, Prompt, Sample


def groups():
    prompt = Prompt("hard:7", "hard", "57+68=", [1, 2], "125")
    right = Sample(
        0, [4, 5], "é: 125", rollout_logp=np.array([-1.0, -2.0], np.float32), weight_version=6, reward=1.0,
        reward_parts={"exact_match": 1.0}, is_accurate=True,
    )  # fmt: skip
    golden = Sample(1, [9], "golden", is_golden=True, reward=float("nan"))
    return [Group(prompt, [right, golden]), Group(prompt, [Sample(0, [3], "no", truncated=True)])]


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def lines(advantages):
    """Of every sample, in order; an advantage by the places of group and sample."""
    for g, group in enumerate(groups()):
        for s, sample in enumerate(group.samples):
            yield record(12, group.prompt, sample, sample, advantages.get((g, s)))


def test_one_record_per_sample(tmp_path):
    path = write_records(tmp_path, 12, lines({(0, 0): np.float32(0.5), (1, 0): -1.0}))
    assert path == tmp_path / "rollouts" / "step_000012.jsonl"
    first, second, third = read(path)
    assert first == {
        "step": 12, "prompt_id": "hard:7", "source": "hard", "index": 0, "prompt": "57+68=", "response": "é: 125",
        "reference": "125", "reward": 1.0, "reward_parts": {"exact_match": 1.0}, "is_accurate": True,
        "is_golden": False, "truncated": False, "grading_failed": "", "tokens": 2, "weight_version": 6,
        "advantage": 0.5, "mean_rollout_logp": -1.5,
    }  # fmt: skip
    assert (second["is_golden"], second["reward"], second["advantage"], second["mean_rollout_logp"]) == (
        True, None, None, None,
    )  # fmt: skip
    assert (third["truncated"], third["advantage"]) == (True, -1.0)
    assert "é" in path.read_text()


def test_the_place_is_that_in_the_group(tmp_path):
    golden = groups()[0].samples[1]  # which was graded outside of it
    told = json.loads(record(1, groups()[0].prompt, Facts(5), golden, 1.0))
    assert (told["index"], told["response"]) == (5, "golden")


def test_a_second_writing_replaces_the_first(tmp_path):
    write_records(tmp_path, 1, lines({}))
    path = write_records(tmp_path, 1, list(lines({}))[:1])
    assert len(read(path)) == 1
    assert [p.name for p in path.parent.iterdir()] == ["step_000001.jsonl"]


def test_half_of_a_surrogate_pair_is_written_and_read_as_it_was(tmp_path):
    sample = Sample(0, [3], "half \ud800 of a pair")
    path = write_records(tmp_path, 1, [record(1, groups()[0].prompt, sample, sample, None)])
    assert read(path)[0]["response"] == "half \ud800 of a pair"


def test_token_values_have_the_row_and_the_text_of_each_token(tmp_path):
    values = {7: {"ids": [1, 2], "logp": [-0.5, None]}, 3: {"ids": [9], "logp": [0.0]}}
    path = write_token_values(tmp_path, 4, values, lambda ids: [f"<{i}>" for i in ids])
    assert path == tmp_path / "token_values" / "step_000004.jsonl"
    assert read(path) == [
        {"row": 3, "pieces": ["<9>"], "ids": [9], "logp": [0.0]},
        {"row": 7, "pieces": ["<1>", "<2>"], "ids": [1, 2], "logp": [-0.5, None]},
    ]


def test_config():
    deadlines = {f"{what}_deadline_s": 600 for what in ("phase", "stop", "export")}
    config = MonitorConfig(
        progress=True,
        trackers=[],
        tracker_project="p",
        trackers_offline=True,
        records=True,
        records_per_step=None,
        token_values_per_step=8,
        **deadlines,
    )
    assert config.records_per_step is None

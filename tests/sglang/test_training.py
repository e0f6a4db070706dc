"""tools/train.py with real SGLang servers and a tensor-parallel actor."""

import json

import pytest

from tests.launching import run
from tests.sglang.real import STARTER, verify_sync


def metrics(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("transport", ["tensor", "distributed", "disk"])
def test_log_probs_agree_after_every_sync(servers, tmp_path, transport):
    run(
        "tools/train.py",
        "rollout=sglang_cpu",
        f"rollout.servers={json.dumps(servers)}",
        "rollout.start_servers=0",
        f"rollout.transport={transport}",
        f"rollout.weights_folder={tmp_path}/weights",
        verify_sync(),
        "rollout.bucket_mib=1",
        "parallel.tensor=2",
        f"model.path={STARTER}",
        f"run.folder={tmp_path}",
        "run.name=run",
        "trainer.steps=3",
        "evaluation.every_steps=0",
        "evaluation.at_start=false",
        processes=2,
        timeout_s=3600,
    )
    steps = metrics(tmp_path / "run")
    assert [m["step"] for m in steps] == [1, 2, 3]
    for step in steps:
        assert step["mismatch/logp_abs_diff_max"] < 1e-4  # 5e-5 seen; fp32
        assert step["sync/seconds"] > 0 and step["rollout/servers_lost"] == 0
    rollouts = "".join(path.read_text() for path in (tmp_path / "run/rollouts").iterdir()).splitlines()
    sampled = [row for row in map(json.loads, rollouts) if not row["is_golden"]]
    assert {row["weight_version"] for row in sampled} == {0, 1, 2}
    assert all(row["weight_version"] == row["step"] - 1 for row in sampled)


def test_the_quick_start_trains_with_servers_of_its_own(tmp_path):
    """Eight steps on two servers that the run starts: accuracy on the held-out hard problems rises from 0."""
    run(
        "tools/train.py",
        "rollout=sglang_cpu",
        "parallel.tensor=2",
        f"run.folder={tmp_path}",
        "run.name=run",
        "trainer.steps=8",
        "evaluation.every_steps=8",
        processes=2,
        timeout_s=3600,
    )
    steps = metrics(tmp_path / "run")
    assert steps[0]["val/hard/avg@1"] < 0.1 and steps[-1]["val/hard/avg@1"] > 0.2
    assert steps[-1]["mismatch/logp_abs_diff_max"] < 1e-4


def test_samples_of_older_weights_and_parts_of_responses_train_too(servers, tmp_path):
    """Two steps ahead, over-sampled, with responses that go on under newer weights: versions are told by token."""
    run(
        "tools/train.py",
        "rollout=sglang_cpu",
        f"rollout.servers={json.dumps(servers)}",
        "rollout.start_servers=0",
        "rollout.max_staleness=2",
        "rollout.oversampling=1.5",
        "rollout.partial=true",
        "rollout.requests_per_server=24",
        "algorithm/mismatch=tis",
        f"model.path={STARTER}",
        f"run.folder={tmp_path}",
        "run.name=run",
        "trainer.steps=5",
        "evaluation.every_steps=0",
        "evaluation.at_start=false",
        processes=2,
        timeout_s=3600,
    )
    steps = metrics(tmp_path / "run")
    assert [m["rollout/prompts_given_back"] for m in steps] == [16.0] * 5
    assert sum(m["rollout/continued"] for m in steps) > 0
    rows = "".join(path.read_text() for path in sorted((tmp_path / "run/rollouts").iterdir())).splitlines()
    sampled = [row for row in map(json.loads, rows) if not row["is_golden"]]
    for row in sampled:
        versions = row.get("token_versions", [row["weight_version"]] * row["tokens"])
        assert len(versions) == row["tokens"] and versions == sorted(versions)
        assert 0 <= versions[0] <= versions[-1] < row["step"]
    assert any("token_versions" in row for row in sampled)

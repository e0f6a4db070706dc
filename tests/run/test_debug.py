"""A step's batch dumped, and its updates made again from that alone; sampling alone; a profile with named phases."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gcpo_mcore.monitor.metrics import read_metrics
from tests.launching import launch, run

ARGUMENTS = [
    "algorithm=gcpo", "trainer.prompts_per_step=4", "trainer.samples_per_prompt=4", "trainer.updates_per_step=2",
    "trainer.checkpoint_every_steps=1", "trainer.keep_checkpoints=9", "trainer.gate_exports=false",
    "evaluation.every_steps=0", "evaluation.at_start=false", "data.eval.easy.max_rows=4", "data.eval.hard.max_rows=4",
    "run.name=x",
]  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a run but its logs, what is in debug/, and who last wrote into it."""
    left_out = {"logs", "debug", "lock", "writer.json"}
    found = (
        path for path in folder.rglob("*") if path.is_file() and not left_out & set(path.relative_to(folder).parts)
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def dumped(carry, tmp_path_factory):
    """The arguments of a run of three steps, and its folder: steps 1 and 3 are dumped, step 2 is profiled."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = [f"prepared={carry}", f"model.path={carry}/init", f"run.folder={folder}", *ARGUMENTS, "trainer.steps=3"]
    run("tools/train.py", *arguments, "debug.dump=[1,3]", "debug.profile=[2]")
    return arguments, folder / "x"


@pytest.mark.parametrize("step", [1, 3])
def test_a_replay_is_the_same_update_to_the_bit_and_leaves_the_run_alone(dumped, step):
    arguments, folder = dumped
    before = files(folder)
    told = run("tools/train.py", *arguments, f"debug.replay={folder}/debug/step_00000{step}.json", "debug.dump=[3]")
    assert told.startswith(f"step {step}: the weights after it are the same to the bit") and told.count("\n") == 1
    assert files(folder) == before


def test_other_rollouts_are_another_update(dumped, tmp_path):
    arguments, folder = dumped
    (tmp_path / "x/debug").mkdir(parents=True)
    (tmp_path / "x/checkpoints").symlink_to(folder / "checkpoints")
    for name in ("step_000003.json", "step_000003.safetensors"):
        (tmp_path / "x/debug" / name).write_bytes((folder / "debug" / name).read_bytes())
    tensors = load_file(tmp_path / "x/debug/step_000003.safetensors")
    tensors["response_ids"] = np.where(tensors["response_ids"] == 4, 5, tensors["response_ids"]).astype(np.int32)
    save_file(tensors, tmp_path / "x/debug/step_000003.safetensors")
    told = run("tools/train.py", *arguments, f"debug.replay={tmp_path}/x/debug/step_000003.json")
    assert told.startswith("step 3: the weights after it are not the same") and "actor/grad_norm: " in told


def test_a_dump_is_of_any_number_of_processes(dumped):
    arguments, folder = dumped
    told = run("tools/train.py", *arguments, f"debug.replay={folder}/debug/step_000003.json", processes=2)
    found = re.search(r"actor/grad_norm: (\S+), before (\S+)", told)
    assert told.startswith("step 3: ")  # sums are rounded in another order
    assert found is None or float(found[1]) == pytest.approx(float(found[2]), rel=1e-4)


def test_a_dump_is_numbers_and_text(dumped):
    _, folder = dumped
    content = json.loads((folder / "debug/step_000001.json").read_text())
    assert content["after"]["metrics"]["actor/loss"] == read_metrics(folder)[0]["actor/loss"]
    rows = [sample for group in content["groups"] for sample in group["samples"]]
    tensors = load_file(folder / "debug/step_000001.safetensors")
    assert len(rows) == 16 and len(tensors["response_ids"]) == sum(row["lengths"]["response_ids"] for row in rows)
    assert sorted(path.name for path in (folder / "debug").glob("step_*")) == [
        f"step_00000{step}.{kind}" for step in (1, 3) for kind in ("json", "safetensors")
    ]


def test_token_values_are_those_of_the_rows(dumped):
    """Of every row: 16 are less than monitor.token_values_per_step, and the second update's rows are the later ones."""
    _, folder = dumped
    records, values = (
        [json.loads(line) for line in (folder / kind / "step_000003.jsonl").read_text().splitlines()]
        for kind in ("rollouts", "token_values")
    )
    assert [one["row"] for one in values] == list(range(16))
    for record, of_tokens in zip(records, values, strict=True):
        assert len(of_tokens["ids"]) == len(of_tokens["entropy"]) == record["tokens"]
        assert re.sub("<(bos|pad|eos)>", "", "".join(of_tokens["pieces"])) == record["response"]
        assert ("rollout_logp" in of_tokens) != record["is_golden"]
        if not record["is_golden"]:
            assert np.mean(of_tokens["rollout_logp"]) == pytest.approx(record["mean_rollout_logp"], abs=1e-3)
            assert np.mean(of_tokens["old_logp"]) == pytest.approx(record["mean_rollout_logp"], abs=1e-3)
        assert of_tokens["advantage"][0] == pytest.approx(record["advantage"], abs=1e-3)


def test_a_profile_names_the_phases(dumped):
    _, folder = dumped
    with gzip.open(folder / "debug/profile_step_000002_rank_00000.json.gz") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {"sample", "grade", "deal", "score", "update"} <= names


def test_sampling_alone_trains_nothing_and_is_beside_the_run(dumped):
    arguments, folder = dumped
    before = files(folder)
    told = run("tools/train.py", *arguments, "trainer.steps=5", "debug.rollout_only=true")
    assert "sampled steps 4 to 5 and trained on none" in told
    assert files(folder) == before
    records = [json.loads(line) for line in (folder / "debug/rollouts/step_000005.jsonl").read_text().splitlines()]
    assert len(records) == 16 and {record["weight_version"] for record in records} <= {6, 0}  # golden answers have none
    assert [line["step"] for line in read_metrics(folder / "debug")] == [4, 5]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["debug.replay=nowhere.json"], "error: debug.replay=nowhere.json: no dump of a step"),
        (["debug.replay=README.md"], "error: debug.replay=README.md: no dump of a step"),
        (["debug.replay=x", "debug.rollout_only=true"], "samples without training: one"),
    ],
)
def test_a_mistake_is_one_line(dumped, settings, words):
    done = launch("tools/train.py", *dumped[0], *settings)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(lines) == 1 and words in lines[0], done.stderr[-2000:]


def test_a_step_whose_checkpoint_is_gone_is_one_line(dumped, tmp_path):
    arguments, folder = dumped
    (tmp_path / "x/debug").mkdir(parents=True)
    for name in ("step_000003.json", "step_000003.safetensors"):
        (tmp_path / "x/debug" / name).write_bytes((folder / "debug" / name).read_bytes())
    done = launch("tools/train.py", *arguments, f"debug.replay={tmp_path}/x/debug/step_000003.json")
    assert done.returncode == 2 and "began from the checkpoint of step 2, which" in done.stderr

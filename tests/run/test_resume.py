"""A run can be stopped, killed, damaged and moved to another layout: it goes on as if nothing had happened."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import xxhash
from safetensors.torch import load_file

from gcpo_mcore.monitor.metrics import read_metrics
from tests.jobs import wait_for
from tests.launching import ENVIRONMENT, ROOT, launch, run
from tests.still import Standstill

TRAIN = "tools/train.py"


def options(carry: Path, folder: Path, steps: int, *more: str) -> list[str]:
    """A GCPO run on the untrained model: every group is all wrong, so golden answers go in from the first step."""
    return [
        f"prepared={carry}", f"model.path={carry}/init", f"run.folder={folder}", "run.name=r", f"trainer.steps={steps}",
        "trainer.prompts_per_step=4", "trainer.samples_per_prompt=4", "trainer.checkpoint_every_steps=2",
        "trainer.updates_per_step=2", "evaluation.every_steps=0", "evaluation.at_start=false", *more,
    ]  # fmt: skip


def outcome(folder: Path) -> tuple[dict, list[dict]]:
    """Final weights and the metrics that do not measure time or memory."""
    metrics = [
        {k: v for k, v in line.items() if not k.startswith(("time", "perf", "memory", "grading/seconds"))}
        for line in read_metrics(folder / "r")
    ]
    return load_file(folder / "r/hf/model.safetensors"), metrics


def assert_same(first, second) -> None:
    assert first[1] == second[1]
    assert first[0].keys() == second[0].keys()
    for name, tensor in first[0].items():
        assert tensor.equal(second[0][name]), name


@pytest.fixture(scope="module")
def whole_folder(carry, tmp_path_factory) -> Path:
    """Five steps without a stop: steps 2, 4 and 5 leave checkpoints."""
    folder = tmp_path_factory.mktemp("whole")
    run(TRAIN, *options(carry, folder, 5, "trainer.keep_checkpoints=1", "trainer.keep_every_steps=2"))
    return folder


@pytest.fixture(scope="module")
def whole(whole_folder):
    return outcome(whole_folder)


def test_prepared_prompts_are_the_same_run(carry, whole, tmp_path):
    """Every source from memory maps for three steps; then as usual."""
    prepared = ["data.cache.above_mib=0", f"data.cache.folder={tmp_path}/cache", "trainer.stop_at_step=3"]
    run(TRAIN, *options(carry, tmp_path, 5, *prepared))
    assert len(list((tmp_path / "cache").glob("*/prepared.json"))) == 4  # two to train on, two held out
    run(TRAIN, *options(carry, tmp_path, 5))
    assert_same(outcome(tmp_path), whole)


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "r/checkpoints").iterdir())


def test_some_checkpoints_are_kept_for_good(whole_folder):
    """The newest one and every second step's."""
    assert checkpoints(whole_folder) == ["step_000002", "step_000004", "step_000005"]


def test_every_file_has_its_sum(whole_folder):
    """Those that were taken while the files were written, against what lies there now."""
    for step in (whole_folder / "r/checkpoints").iterdir():
        files = json.loads((step / "manifest.json").read_text())["files"]
        there = {str(path.relative_to(step)): path.read_bytes() for path in step.rglob("*") if path.is_file()}
        assert there.keys() - files.keys() == {"manifest.json", "manifest.sum"}
        for name, said in files.items():
            of = xxhash.xxh3_128(there[name]).hexdigest()
            assert said == {"bytes": len(there[name]), "algorithm": "xxh3_128", "sum": of}, name


def test_golden_answers_went_in(whole):
    assert all(line["groups/golden_injected"] == 4 for line in whole[1])
    assert all(line["mismatch/logp_abs_diff_max"] < 1e-4 for line in whole[1])
    assert all(line["update/count"] == 2 for line in whole[1])


def test_stop_and_resume_is_bitwise(carry, tmp_path, whole):
    """The second half with other free keys, of which none changes what is computed."""
    assert "stopped at step 2 of 5" in run(TRAIN, *options(carry, tmp_path, 5, "trainer.stop_at_step=2"))
    free = [
        "reward.workers=1",
        "reward.memory_limit_mib=1500",
        "data.golden_checked_rows=1",
        "data.eval.easy.max_rows=3",
    ]
    run(TRAIN, *options(carry, tmp_path, 5, "actor.offload=all", *free, "optimizer.max_skipped_updates=9"))
    assert_same(outcome(tmp_path), whole)
    phases = {"sync", "sample", "grade", "score", "update"}
    for line in read_metrics(tmp_path / "r"):
        assert phases <= {k.removeprefix("memory/").removesuffix("_peak_gib") for k in line if k.startswith("memory/")}


def test_kill_in_a_checkpoint_and_resume_is_bitwise(carry, tmp_path, whole, whole_folder):
    """kill -9 while the fourth step's checkpoint is written: the run goes on from step 2, and step 3 counts once.

    All of it with asynchronous checkpoints: their content is that of the others to the bit.
    """
    asynchronous = options(carry, tmp_path, 5, "trainer.async_checkpoints=true", "trainer.keep_checkpoints=9")
    still, log = Standstill(tmp_path, "open", "tmp_step_000004/shards/__"), tmp_path / "log"
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, TRAIN, *asynchronous], cwd=ROOT, env=still.environment(ENVIRONMENT),
            stdout=file, stderr=file,
        )  # fmt: skip
    try:
        wait_for(still.is_met, [process], log)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert checkpoints(tmp_path) == ["step_000002", "tmp_step_000004"]
    run(TRAIN, *asynchronous)
    assert_same(outcome(tmp_path), whole)
    assert checkpoints(tmp_path) == checkpoints(whole_folder)
    for step in checkpoints(tmp_path):
        mine, expected = (
            json.loads((folder / "r/checkpoints" / step / "manifest.json").read_text())["files"]
            for folder in (tmp_path, whole_folder)
        )
        assert mine.keys() == expected.keys()
        # But for the states of Python's and numpy's global generators, which nothing uses.
        assert {name for name in mine if mine[name] != expected[name]} <= {"rank_00000.json"}


def test_stop_fail_and_resume_is_bitwise(carry, tmp_path, whole):
    """A stop at step 2; a file system that takes no more at step 4: the run ends, and goes on from step 2 later."""
    assert "stopped at step 2 of 5" in run(TRAIN, *options(carry, tmp_path, 5, "trainer.stop_at_step=2"))
    done = subprocess.run(
        [sys.executable, TRAIN, *options(carry, tmp_path, 5, "trainer.async_checkpoints=true")],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, 2**17)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "error: phase checkpoint: rank 0 could not write" in done.stderr and "Traceback" not in done.stderr
    assert "earlier checkpoints are intact" in done.stderr
    assert checkpoints(tmp_path) == ["step_000002", "tmp_step_000004"]
    run(TRAIN, *options(carry, tmp_path, 5))
    assert_same(outcome(tmp_path), whole)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def test_damaged_checkpoint_is_left_out(carry, tmp_path, whole):
    run(TRAIN, *options(carry, tmp_path, 5, "trainer.stop_at_step=4"))
    shard = max((tmp_path / "r/checkpoints/step_000004/shards").glob("*.distcp"), key=lambda p: p.stat().st_size)
    flip_a_bit(shard)
    done = launch(TRAIN, *options(carry, tmp_path, 5))
    assert done.returncode == 0
    assert f"step_000004 is left out: rank 0: shards/{shard.name} is damaged" in done.stderr
    assert_same(outcome(tmp_path), whole)


def test_the_rank_that_reads_the_damage_names_it(carry, tmp_path):
    """Each of two ranks has an optimizer state of its own; when no checkpoint is good, the line is the last word."""
    two = "parallel.distributed_optimizer=true", "trainer.keep_checkpoints=2"
    run(TRAIN, *options(carry, tmp_path, 5, "trainer.stop_at_step=4", *two), processes=2)
    steps = tmp_path / "r/checkpoints"
    flip_a_bit(steps / "step_000004/shards/__1_1.distcp")
    flip_a_bit(steps / "step_000002/rank_00001.json")
    done = launch(TRAIN, *options(carry, tmp_path, 5, *two), processes=2)
    assert done.returncode != 0
    assert "step_000004 is left out: rank 1: shards/__1_1.distcp is damaged" in done.stderr
    assert "step_000002: rank 1: rank_00001.json is damaged; no older checkpoint is good" in done.stderr


def test_resume_at_another_layout(carry, tmp_path, whole):
    """From one process to two pipeline stages, to two data ranks: the same run to rounding."""
    run(TRAIN, *options(carry, tmp_path, 5, "trainer.stop_at_step=2"))
    run(TRAIN, *options(carry, tmp_path, 5, "trainer.stop_at_step=4", "parallel.tensor=2"), processes=2)
    run(TRAIN, *options(carry, tmp_path, 5), processes=2)
    weights, metrics = outcome(tmp_path)
    assert [line["step"] for line in metrics] == [1, 2, 3, 4, 5]
    for mine, expected in zip(metrics, whole[1], strict=True):
        assert mine["actor/grad_norm"] == pytest.approx(expected["actor/grad_norm"], rel=1e-3)
    for name, tensor in whole[0].items():
        assert (weights[name] - tensor).norm() / tensor.norm() < 1e-3, name


def test_finished_run_says_so(carry, tmp_path):
    run(TRAIN, *options(carry, tmp_path, 2))
    assert "nothing left to train" in run(TRAIN, *options(carry, tmp_path, 2))


def test_another_configuration_is_refused(carry, tmp_path):
    run(TRAIN, *options(carry, tmp_path, 2, "optimizer.lr=2e-4"))
    done = launch(TRAIN, *options(carry, tmp_path, 4, "optimizer.lr=1e-3"))
    assert done.returncode == 2
    assert "was made with optimizer.lr=0.0002, not 0.001" in done.stderr
    done = launch(TRAIN, *options(carry, tmp_path, 4, "run.resume=never"))
    assert done.returncode == 2 and "run.resume=never" in done.stderr


def test_checkpoint_of_another_model_is_refused(carry, tiny_models, tmp_path):
    run(TRAIN, *options(carry, tmp_path, 2))
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", str(carry / "init"), str(other)], check=True)
    config = json.loads((other / "config.json").read_text())
    config["num_hidden_layers"] = 2
    config["layer_types"] = config["layer_types"][:2]
    (other / "config.json").write_text(json.dumps(config))
    done = launch(TRAIN, *options(carry, tmp_path, 4, f"model.path={other}"))
    assert done.returncode == 2
    assert "is a checkpoint of another model: layers 3, not 2" in done.stderr

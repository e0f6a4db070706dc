"""A checkpoint is worth keeping or it is not taken; good ones outlive damaged ones; a run can go back behind some."""

import json
import subprocess
from pathlib import Path

import pytest

from gcpo_mcore.monitor.metrics import read_metrics
from tests.launching import launch, run
from tests.run.test_resume import TRAIN, checkpoints, flip_a_bit, options

WORKER = Path(__file__).with_name("breaking_worker.py")
EVERY = "trainer.checkpoint_every_steps=1"
NEVER = 999


def train_until(first_bad: int, carry: Path, folder: Path, *more: str) -> subprocess.CompletedProcess:
    """Six steps of two updates each; of this launch's, all from number `first_bad` on have gradients of NaN."""
    breaks = ["algorithm.surrogate.name=breaks", "optimizer.max_skipped_updates=3", EVERY, "trainer.keep_checkpoints=1"]
    return launch(WORKER, str(first_bad), *options(carry, folder, 6), *breaks, *more)


def last_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("is_async", ["false", "true"])
def test_none_is_taken_while_updates_are_left_out(is_async, carry, tmp_path):
    """Steps 3 and 4 are: the checkpoint of step 2 is the last, it stays, and the last line says so."""
    done = train_until(5, carry, tmp_path, f"trainer.async_checkpoints={is_async}")
    good = tmp_path / "r/checkpoints/step_000002"
    assert last_line(done) == (
        "error: phase update: the gradient norm was not finite in 3 updates in a row (optimizer.max_skipped_updates); "
        f"the newest good checkpoint is {good}"
    )
    assert "none is taken of step 3: the last 2 updates were left out" in done.stderr
    assert good.name in checkpoints(tmp_path) and "step_000003" not in checkpoints(tmp_path)
    done = train_until(NEVER, carry, tmp_path, "trainer.stop_at_step=3")
    assert done.returncode == 0 and checkpoints(tmp_path) == ["step_000003"], done.stderr


def test_the_count_goes_on_in_a_continuation(carry, tmp_path):
    """At a stop the weights, those from before, are kept with the count, and the checkpoint before them as well."""
    done = train_until(4, carry, tmp_path, "trainer.stop_at_step=2")
    assert done.returncode == 0 and checkpoints(tmp_path) == ["step_000001", "step_000002"], done.stderr
    assert json.loads((tmp_path / "r/checkpoints/step_000002/state.json").read_text())["skipped_updates"] == 1
    assert "not finite in 3 updates in a row" in last_line(train_until(1, carry, tmp_path))
    assert [line["step"] for line in read_metrics(tmp_path / "r")] == [1, 2]


def test_weights_that_are_not_finite_are_not_kept(carry, tmp_path):
    """The first update throws some over the largest number that there is."""
    huge = ["optimizer.lr=3.3e38", "optimizer.beta1=0", "optimizer.weight_decay=1", "optimizer.warmup_updates=0"]
    done = launch(TRAIN, *options(carry, tmp_path, 2), *huge, "trainer.updates_per_step=1", "trainer.stop_at_step=1")
    assert last_line(done) == (
        "error: phase checkpoint: none is taken of step 1: the weights are not finite; there is no good checkpoint"
    )


def test_good_checkpoints_outlive_damaged_ones(carry, tmp_path):
    """4 and 6 are damaged, so the run goes on from 2: with room for two, 2 and 3 are kept."""
    run(TRAIN, *options(carry, tmp_path, 6, "trainer.keep_checkpoints=3"))
    steps = tmp_path / "r/checkpoints"
    for step in (4, 6):
        flip_a_bit(steps / f"step_{step:06d}/shards/__0_0.distcp")
    again = options(carry, tmp_path, 8, "trainer.keep_checkpoints=2")
    done = launch(TRAIN, *again, "trainer.stop_at_step=3")
    assert done.returncode == 0, done.stderr
    assert checkpoints(tmp_path) == ["aside_step_000004", "aside_step_000006", "step_000002", "step_000003"]
    run(TRAIN, *again, "trainer.stop_at_step=4")
    assert checkpoints(tmp_path) == ["aside_step_000006", "step_000003", "step_000004"]


def test_a_run_goes_back(carry, tmp_path):
    """From step 4 to 2; what was after it is set aside, until the run has come there again."""
    settings = [EVERY, "trainer.keep_checkpoints=9"]
    run(TRAIN, *options(carry, tmp_path, 4), *settings)
    back = [*options(carry, tmp_path, 4), *settings, "trainer.stop_at_step=3"]
    assert "run.resume_step=7" in last_line(launch(TRAIN, *back, "run.resume_step=7"))
    assert "stopped at step 3 of 4" in run(TRAIN, *back, "run.resume_step=2")
    assert [line["step"] for line in read_metrics(tmp_path / "r")] == [1, 2, 3]
    good = [f"step_{step:06d}" for step in (1, 2, 3)]
    assert checkpoints(tmp_path) == ["aside_step_000004", *good]
    assert "Hugging Face export" in run(TRAIN, *options(carry, tmp_path, 4), *settings)
    assert checkpoints(tmp_path) == [*good, "step_000004"]

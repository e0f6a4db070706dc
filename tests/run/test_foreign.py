"""Folders from elsewhere are safe to open: no file of a checkpoint or a Hugging Face folder runs code here."""

import json
import shutil
from pathlib import Path

import pytest

from tests.hostile_pickle import fit_manifest, forms
from tests.launching import launch, run

READ = {".metadata", "__0_0.distcp", "pytorch_model.bin", "config.json", "config.yaml", "tokenizer.json"}


@pytest.fixture(scope="module")
def told(carry, tmp_path_factory) -> list[list]:
    """[file and form, the error or null, whether code of it ran] of every conversion."""
    folder = tmp_path_factory.mktemp("foreign")
    shutil.copytree(carry / "init", folder / "hf")
    run("tools/convert.py", "to-megatron", str(folder / "hf"), str(folder / "run"), "--no-gate")
    places = (folder / "run", folder / "hf", folder / "out", folder / "ran")
    out = run(Path(__file__).with_name("foreign_worker.py"), *map(str, places))
    return [json.loads(line.removeprefix("told ")) for line in out.splitlines() if line.startswith("told ")]


def test_no_file_runs_code(told):
    assert len(told) > 30 and [name for name, _, has_run in told if has_run] == []


def test_each_file_that_is_read_is_refused_in_one_line(told):
    refused = {name.partition(" (")[0].rpartition("/")[2] for name, error, _ in told if error and "\n" not in error}
    assert refused >= READ
    assert [name for name, error, _ in told if error and "\n" in error] == []


def test_a_resume_from_a_foreign_checkpoint(carry, tmp_path):
    """Random states in the form of older checkpoints, and an index: each runs code in whoever unpickles it."""
    options = [
        f"prepared={carry}", f"model.path={carry}/init", f"run.folder={tmp_path}", "run.name=r", "trainer.steps=3",
        "trainer.prompts_per_step=2", "trainer.samples_per_prompt=2", "trainer.checkpoint_every_steps=0",
        "evaluation.every_steps=0", "evaluation.at_start=false",
    ]  # fmt: skip
    run("tools/train.py", *options, "trainer.stop_at_step=1")
    checkpoint = tmp_path / "r/checkpoints/step_000001"
    (checkpoint / "rank_00000.json").unlink()
    for name in ("rank_00000.pt", "shards/.metadata"):
        (checkpoint / name).write_bytes(forms(tmp_path / "ran")["torch"])
        fit_manifest(checkpoint, name)
        done = launch("tools/train.py", *options)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert f"{checkpoint / name} " in done.stderr
    assert not (tmp_path / "ran").exists()

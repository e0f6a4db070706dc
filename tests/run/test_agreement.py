"""Ranks that do not have the same run end before its first step, with the rank, the host and what differs."""

import json
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.launching import ROOT, launch
from tests.run.test_resume import options

WORKER = Path(__file__).with_name("differing_worker.py")


def override(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "overrides").write_text(text)

    return write


def another_golden_answer(folder: Path) -> None:
    file = folder / "carry/train_easy.jsonl"
    first, *rest = file.read_text().splitlines(keepends=True)
    row = json.loads(first)
    file.write_text(json.dumps(row | {"golden_answer": "again: " + row["golden_answer"]}) + "\n" + "".join(rest))


def other_weights(folder: Path) -> None:
    file = folder / "carry/init/model.safetensors"
    save_file({name: tensor + 1e-3 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})


def other_code(folder: Path) -> None:
    shutil.copytree(ROOT / "algorithms", folder / "packages/algorithms")
    with open(folder / "packages/algorithms/gcpo.py", "a") as file:
        file.write("# changed\n")


def no_checkpoint_4(folder: Path) -> None:
    shutil.rmtree(folder / "runs/r/checkpoints/step_000004")


@pytest.fixture
def ranks(carry, tmp_path):
    """Runs two ranks, each in a folder of its own with the same things in it, after `change` of the second one's."""
    for name in ("first", "second"):
        shutil.copytree(carry, tmp_path / name / "carry")
        (tmp_path / name / "overrides").touch()

    def train(steps: int, change: Callable[[Path], None] | None = None, runs: str = "runs"):
        if change is not None:
            change(tmp_path / "second")
        return launch(WORKER, str(tmp_path / "second"), *options(Path("carry"), Path(runs), steps), processes=2)

    return train


@pytest.mark.parametrize(
    "change, told",
    [
        (override("optimizer.lr=3e-3"), r"optimizer.lr=0.003, rank 0 on HOST has 0.0\d+"),
        (override("trainer.samples_per_prompt=2"), "trainer.samples_per_prompt=2, rank 0 on HOST has 4"),
        (another_golden_answer, "the golden answers of data.train.easy=DIGEST, rank 0 on HOST has DIGEST, and 1 more"),
        (other_weights, "the files of model.path=DIGEST, rank 0 on HOST has DIGEST"),
        (other_code, "the code of gcpo_mcore.algorithms=DIGEST, rank 0 on HOST has DIGEST"),
    ],
)
def test_a_rank_with_another_plan(change, told, ranks, tmp_path):
    done = ranks(2, change)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    expected = f"error: rank 1 on HOST has {told}; all ranks of a run need the same"
    expected = expected.replace("HOST", re.escape(socket.gethostname())).replace("DIGEST", "[0-9a-f]{16}")
    assert re.fullmatch(expected, line), line
    assert not (tmp_path / "first/runs/r/metrics.jsonl").exists()


def test_a_rank_that_sees_another_checkpoint(ranks, tmp_path):
    """Rank 0 alone says which one is the newest: a rank that does not see it there ends the run."""
    shared = str(tmp_path / "runs")
    done = ranks(4, runs=shared)
    assert done.returncode == 0, done.stderr
    for name in ("first", "second"):
        shutil.copytree(shared, tmp_path / name / "runs", ignore=shutil.ignore_patterns("config.yaml"))
    done = ranks(6, no_checkpoint_4)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "has the checkpoint=runs/r/checkpoints/step_000004: No such file or directory, rank 0 on" in line

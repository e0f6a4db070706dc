"""What a run reads besides its configuration may not change under it without a word."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.launching import launch, run
from tests.run.test_resume import TRAIN, options


def change_row(file: Path, **columns: str) -> None:
    first, *rest = file.read_text().splitlines(keepends=True)
    file.write_text(json.dumps(json.loads(first) | columns) + "\n" + "".join(rest))


def golden_answer(carry: Path) -> None:
    change_row(carry / "train_easy.jsonl", golden_answer="0")


def column(carry: Path) -> None:
    change_row(carry / "train_easy.jsonl", hint="carry the one")


def evaluation(carry: Path) -> None:
    change_row(carry / "eval_easy.jsonl", answer="0")


def weights(carry: Path) -> None:
    file = carry / "init/model.safetensors"
    save_file({name: tensor * 1.001 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def begun(carry, tmp_path_factory) -> Path:
    """A folder with data, starter and a run that stopped at step 2."""
    folder = tmp_path_factory.mktemp("begun")
    shutil.copytree(carry, folder / "carry")
    run(TRAIN, *options(folder / "carry", folder, 3, "trainer.stop_at_step=2"))
    return folder


@pytest.mark.parametrize(
    "change, told",
    [
        (golden_answer, "the golden answers of data.train.easy changed since"),
        (column, "the columns of data.train.easy changed since"),
        (evaluation, "the rows of data.eval.easy (all rows of {carry}/eval_easy.jsonl) changed since"),
        (weights, "the files of model.path changed since"),
    ],
)
def test_a_change_is_refused_unless_it_is_allowed(change, told, begun, tmp_path):
    carry, kept = begun / "carry", tmp_path / "kept"
    shutil.copytree(begun, kept)
    try:
        change(carry)
        again = options(carry, begun, 3)
        done = launch(TRAIN, *again)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert line.startswith(f"error: {told.format(carry=carry)}") and "run.changed_inputs=allow" in line
        done = launch(TRAIN, *again, "run.changed_inputs=allow", "trainer.stop_at_step=3")
        assert done.returncode == 0 and told.format(carry=carry) in done.stderr, done.stderr
    finally:
        shutil.rmtree(begun)
        shutil.move(kept, begun)

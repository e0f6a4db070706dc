"""The run folder among what people leave in it, and places that cannot be written: one line, and nothing lost."""

import os
from pathlib import Path

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.files import check_writable, named_when_good
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.run.folder import RunFolder
from tests.launching import launch


@pytest.fixture
def write(tiny_models):
    """Writes a small good checkpoint."""
    arch = read_architecture(str(tiny_models["qwen2-tied"]))

    def checkpoint(folder: RunFolder, step: int) -> None:
        folder.begin_checkpoint(step, {"step": step})
        folder.finish_checkpoint(step, arch, {})

    return checkpoint


def test_strays_among_the_checkpoints_are_no_steps(tmp_path, write):
    folder = RunFolder(tmp_path)
    for step in (20, 40, 1_000_000):
        write(folder, step)
    for name in ("step_000020_copy", "step_abc", "step_000040.bak", "step_20", "step_0000020", "step_-00001", "step_"):
        (folder.checkpoints / name).mkdir()
    (folder.checkpoints / "step_000060").touch()
    (folder.checkpoints / "step_latest").symlink_to("step_000040")
    (folder.checkpoints / "step_000080").symlink_to("gone")
    assert folder.steps() == [1_000_000, 40, 20]
    before = {path.name for path in folder.checkpoints.iterdir()}
    folder.drop_old(keep=1)
    assert {path.name for path in folder.checkpoints.iterdir()} == before - {"step_000020", "step_000040"}


def test_only_good_checkpoints_count(tmp_path, write):
    """Damaged ones among and above them, of which the system sees the damage without reading all."""
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3, 4, 5):
        write(folder, step)
    for step in (2, 4, 5):
        (folder.folder(step) / "state.json").write_text("")
    folder.drop_old(keep=2)
    assert folder.steps() == [5, 4, 3, 2, 1]
    folder.drop_old(keep=1)
    assert folder.steps() == [5, 4, 3]


def test_a_checkpoint_that_is_kept_elsewhere_is_only_unlinked(tmp_path, write):
    folder = RunFolder(tmp_path / "run")
    write(folder, 2)
    (tmp_path / "elsewhere").mkdir()
    folder.folder(1).symlink_to(tmp_path / "elsewhere")
    assert folder.steps() == [2, 1]
    folder.drop_old(keep=1)
    assert folder.steps() == [2] and (tmp_path / "elsewhere").is_dir()


def test_the_step_of_the_export(tmp_path):
    folder = RunFolder(tmp_path)
    assert not folder.has_export_of(2)
    folder.export.mkdir()
    assert folder.has_export_of(2)  # of a run of before there was a note
    folder.note_export(2)
    assert folder.has_export_of(2) and not folder.has_export_of(4)


def test_a_folder_gives_way_to_a_good_one_only(tmp_path):
    out = tmp_path / "out"

    def replace(content: str, problem: Exception | None = None) -> None:
        with named_when_good(out, replaces=True) as folder:
            folder.mkdir()
            (folder / "content").write_text(content)
            if problem:
                raise problem

    replace("a")
    with pytest.raises(KeyError):
        replace("b", KeyError())
    assert (out / "content").read_text() == "a"
    replace("c")
    assert (out / "content").read_text() == "c"
    out.rename(tmp_path / "tmp_old_out")  # as one leaves it that is killed between its two renames
    with pytest.raises(KeyError):
        replace("d", KeyError())
    assert (out / "content").read_text() == "c" and os.listdir(tmp_path) == ["out"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("gone")
    for place, told in (("file", "is a file"), ("file/deep/r", "is a file"), ("link/r", "leads nowhere")):
        with pytest.raises(UserError, match=told):
            check_writable(tmp_path / place)
    check_writable(tmp_path / "new/deep")
    check_writable(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


READ_ONLY = Path("/sys")  # a file system that nobody writes new folders to, the superuser neither


@pytest.mark.parametrize("tool", ["train", "convert"])
@pytest.mark.parametrize("kind", ["file", "read-only"])
def test_tools_say_so_in_one_line(tool, kind, carry, tmp_path):
    if kind == "file":
        place = tmp_path / "file"
        place.touch()
    else:
        place = READ_ONLY / "gcpo"
        with pytest.raises(OSError):
            place.mkdir()
    if tool == "train":
        arguments = [f"prepared={carry}", f"model.path={carry}/init", f"run.folder={place}/runs"]
    else:
        arguments = ["to-megatron", str(carry / "init"), str(place / "out")]
    done = launch(f"tools/{tool}.py", *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert str(place if kind == "file" else READ_ONLY) in line

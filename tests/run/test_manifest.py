"""A checkpoint's manifest: whatever happens to it is noticed, in one line."""

import hashlib
import json
import re

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.run.folder import RunFolder, check
from gcpo_mcore.run.manifest import named_versions, present_versions, read_manifest
from tests.sums import sum_folder


@pytest.fixture
def checkpoint(tmp_path, tiny_models):
    """A checkpoint whose shards are a text."""
    folder = RunFolder(tmp_path / "run")
    folder.begin_checkpoint(2, {"step": 2})
    (folder.temporary(2) / "shards").mkdir()
    (folder.temporary(2) / "shards/a").write_text("some weights")
    sums = {"shards/a": sum_folder(folder.temporary(2))["shards/a"]}
    folder.finish_checkpoint(2, read_architecture(str(tiny_models["qwen2-tied"])), sums)
    return folder.folder(2)


def test_what_it_says(checkpoint):
    manifest = read_manifest(checkpoint)
    assert (manifest.step, manifest.versions, set(manifest.files)) == (
        2,
        present_versions(),
        {"state.json", "shards/a"},
    )
    assert check(checkpoint) is None
    assert {each.algorithm for each in manifest.files.values()} == {"xxh3_128"}


def test_every_flipped_bit_is_noticed(checkpoint):
    for name in ("manifest.json", "manifest.sum", "state.json", "shards/a"):
        whole = (checkpoint / name).read_bytes()
        for bit in range(8 * len(whole)):
            content = bytearray(whole)
            content[bit // 8] ^= 1 << bit % 8
            (checkpoint / name).write_bytes(content)
            assert check(checkpoint), (name, bit)
        (checkpoint / name).write_bytes(whole)
    assert check(checkpoint) is None


OTHER_CONTENTS = [
    "", "{", "{}", "[]", "null", '{"files": []}', '{"files": {}, "step": 1, "architecture": {}}',
    '{"step": 1, "architecture": {}, "files": {"a": [1]}}', '{"step": {}, "architecture": 1, "files": {"a": 1}}',
]  # fmt: skip


@pytest.mark.parametrize("content", OTHER_CONTENTS)
def test_another_content_is_one_line(checkpoint, content):
    (checkpoint / "manifest.json").write_text(content)
    assert "it has no readable manifest.json" in (check(checkpoint) or "")


def test_missing_files(checkpoint):
    (checkpoint / "shards/a").rename(checkpoint / "shards/b")
    assert check(checkpoint, reads_all=False) == "shards/a is missing"
    (checkpoint / "manifest.sum").unlink()
    assert check(checkpoint) == "manifest.sum is missing"


def test_an_older_manifest(checkpoint):
    """As they were before: sizes and SHA-256, and no sum of itself."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"] = {
        name: [each["bytes"], hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()]
        for name, each in manifest["files"].items()
    }
    del manifest["versions"]
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    (checkpoint / "manifest.sum").unlink()
    assert check(checkpoint) is None
    (checkpoint / "shards/a").write_text("some_weights")
    assert check(checkpoint, reads_all=False) is None
    assert check(checkpoint) == "shards/a is damaged"


def test_a_file_that_nobody_summed(tmp_path, tiny_models):
    folder = RunFolder(tmp_path / "run")
    folder.begin_checkpoint(2, {})
    (folder.temporary(2) / "stray").touch()
    with pytest.raises(UserError, match=r"tmp_step_000002/stray was written by nobody"):
        folder.finish_checkpoint(2, read_architecture(str(tiny_models["qwen2-tied"])), {})


def test_other_versions_are_named(checkpoint, monkeypatch):
    with pytest.raises(UserError, match=r"^no weights$"), named_versions(checkpoint):
        raise UserError("no weights")
    here = present_versions()
    monkeypatch.setattr("gcpo_mcore.run.manifest.present_versions", lambda: here | {"megatron-core": "0.1"})
    line = re.escape(f"no weights; it was written with megatron-core {here['megatron-core']}, here is 0.1")
    with pytest.raises(UserError, match=f"^{line}$"), named_versions(checkpoint):
        raise UserError("no weights")

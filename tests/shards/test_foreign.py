"""Shards from elsewhere: whatever stands in their files, reading them runs nothing and ends in one line."""

import pickle
from types import SimpleNamespace

import pytest
import torch
from torch.distributed.checkpoint import FileSystemWriter, save

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.shards.piece import Piece
from gcpo_mcore.shards.reading import Reading, read_common, read_index
from gcpo_mcore.shards.writing import write_file, write_index
from tests.hostile_pickle import forms

FILES = (".metadata", "common.pt", "__0_0.distcp")


def read_all(shards):
    """Everything of shards with one tensor."""
    read_common(shards)
    Reading(shards, [Piece("w", (4, 2), (0, 0), torch.zeros(4, 2))]).fill()


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    entries, _ = write_file(folder / "__0_0.distcp", [Piece("w", (4, 2), (0, 0), torch.ones(4, 2))])
    write_index(folder, entries, {})
    read_all(folder)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_a_pickle_that_runs_code(shards, tmp_path, name):
    for content in forms(tmp_path / "ran").values():
        (shards / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            read_all(shards)
    assert not (tmp_path / "ran").exists()


def test_what_is_pickled_otherwise(shards):
    for value in ({}, [1], torch.float32, "text"):
        (shards / ".metadata").write_bytes(pickle.dumps(value))
        with pytest.raises(UserError, match=r"\.metadata cannot be read"):
            read_index(shards)
        torch.save(value, shards / "common.pt")
        if value != {}:
            with pytest.raises(UserError, match=r"common\.pt cannot be read \(it holds a"):
                read_common(shards)


CHANGES = {
    "another place": lambda index: [vars(p).update(relative_path="../w") for p in index.storage_data.values()],
    "no place": lambda index: index.storage_data.clear(),
    "a place of no length": lambda index: [vars(p).update(length=None) for p in index.storage_data.values()],
    "no places": lambda index: vars(index).update(storage_data=None),
    "no tensors": lambda index: vars(index).update(state_dict_metadata=[]),
    "a shape of words": lambda index: vars(index.state_dict_metadata["w"]).update(size=("a", "b")),
    "a piece of one axis": lambda index: vars(index.state_dict_metadata["w"].chunks[0]).update(sizes=torch.Size([8])),
    "pieces that are none": lambda index: vars(index.state_dict_metadata["w"]).update(chunks=[SimpleNamespace()]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_index_that_says_something_else(shards, change):
    index = pickle.loads((shards / ".metadata").read_bytes())
    CHANGES[change](index)
    (shards / ".metadata").write_bytes(pickle.dumps(index))
    with pytest.raises(UserError, match=f"^{shards}.*(cannot be read|does not say where)"):
        read_all(shards)


def test_a_piece_of_another_shape(shards):
    stored = pickle.loads((shards / ".metadata").read_bytes())
    torch.save(torch.ones(2, 2), shards / "__0_0.distcp")
    (place,) = stored.storage_data.values()
    place.length = (shards / "__0_0.distcp").stat().st_size
    (shards / ".metadata").write_bytes(pickle.dumps(stored))
    with pytest.raises(UserError, match="has another w"):
        read_all(shards)


def test_an_index_of_torchs_own_writer_is_read(tmp_path):
    """It has more in it than ours: paths, and what a planner noted."""
    save({"w": torch.ones(4, 2)}, storage_writer=FileSystemWriter(tmp_path), no_dist=True)
    again = torch.zeros(4, 2)
    Reading(tmp_path, [Piece("w", (4, 2), (0, 0), again)]).fill()
    assert again.equal(torch.ones(4, 2))

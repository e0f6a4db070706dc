"""A folder of shards: what is written in any pieces is read back in any others, and nothing else."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint import FileSystemReader, load

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.shards.piece import Piece, boxes
from gcpo_mcore.shards.reading import Reading, read_common
from gcpo_mcore.shards.writing import write_file, write_index
from tests.sums import sum_folder


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_boxes_are_the_range_row_by_row(shape, data):
    numbers = torch.arange(math.prod(shape)).view(shape)
    start = data.draw(st.integers(0, numbers.numel()))
    stop = data.draw(st.integers(start, numbers.numel()))
    found = list(boxes(tuple(shape), start, stop))
    cut = [numbers[tuple(slice(o, o + n) for o, n in zip(*box, strict=True))].flatten() for box in found]
    assert torch.cat([*cut, torch.empty(0, dtype=torch.int64)]).tolist() == list(range(start, stop))
    assert len(found) <= 2 * len(shape) - 1


def cut(key: str, tensor: torch.Tensor, at: list[int]) -> list[list[Piece]]:
    """A tensor cut into flat spans that begin at `at`, one for each rank."""
    flat = tensor.flatten()
    ranks = []
    for start, stop in pairwise([0, *sorted(at), len(flat)]):
        pieces, done = [], start
        for offset, sizes in boxes(tuple(tensor.shape), start, stop):
            pieces.append(Piece(key, tuple(tensor.shape), offset, flat[done:][: math.prod(sizes)].view(sizes)))
            done += math.prod(sizes)
        ranks.append(pieces)
    return ranks


def write(shards, ranks: list[list[Piece]]) -> dict:
    """Writes what each rank has; returns the sums."""
    shards.mkdir()
    written = {f"__{rank}_0.distcp": write_file(shards / f"__{rank}_0.distcp", of) for rank, of in enumerate(ranks)}
    entries = [entry for each, _ in written.values() for entry in each]
    return {name: total for name, (_, total) in written.items()} | write_index(
        shards, entries, {"optimizer": {"step": 3.0}}
    )


@settings(deadline=None)
@given(data=st.data())
def test_any_cut_is_read_by_any_other(data, tmp_path_factory):
    tensor = torch.randn(5, 3, 4)
    places = st.lists(st.integers(0, tensor.numel()), max_size=4)
    shards = tmp_path_factory.mktemp("any") / "shards"
    sums = write(shards, cut("w", tensor, data.draw(places)))
    assert sums == sum_folder(shards)
    assert read_common(shards) == {"optimizer": {"step": 3.0}}
    again = torch.full_like(tensor, math.nan)
    for of in cut("w", again, data.draw(places)):
        Reading(shards, of).fill()
    assert again.equal(tensor)
    theirs = {"w": torch.full_like(tensor, math.nan)}
    load(theirs, storage_reader=FileSystemReader(shards), no_dist=True)
    assert theirs["w"].equal(tensor)


def test_only_the_files_that_are_needed(tmp_path):
    tensor = torch.randn(8, 2)
    write(tmp_path / "s", cut("w", tensor, [4, 10]))
    again = torch.zeros(8, 2)
    ranks = cut("w", again, [4, 10])
    assert [Reading(tmp_path / "s", of).files for of in ranks] == [{f"__{rank}_0.distcp"} for rank in range(3)]
    (tmp_path / "s/__0_0.distcp").unlink()
    Reading(tmp_path / "s", ranks[1]).fill()
    assert again.flatten()[4:10].equal(tensor.flatten()[4:10])


@pytest.mark.parametrize("rows", [3, 7])
def test_padding_may_differ_where_it_is_said(rows, tmp_path):
    tensor = torch.randn(5, 2)
    write(tmp_path / "s", cut("w", tensor, [3]))
    again = torch.full((rows, 2), math.nan)
    (piece,) = cut("w", again, [])[0]
    with pytest.raises(UserError, match=rf"w has shape \[5, 2\], not \[{rows}, 2\]"):
        Reading(tmp_path / "s", [piece])
    Reading(tmp_path / "s", [Piece(piece.key, piece.shape, piece.offset, piece.tensor, True)]).fill()
    assert again[:5].equal(tensor[:rows]) and not again[5:].any()


def test_what_is_missing_or_twice_is_said(tmp_path):
    tensor = torch.randn(4, 2)
    ranks = cut("w", tensor, [3, 5])
    with pytest.raises(UserError, match="6 elements of w were written, it has 8"):
        write(tmp_path / "missing", [ranks[0], ranks[2]])
    with pytest.raises(UserError, match=r"w at \(3, 0\) was written twice: __1_0.distcp, __2_0.distcp"):
        write(tmp_path / "twice", [ranks[0], ranks[2], [Piece("w", (4, 2), (3, 0), torch.ones(1, 2))]])
    over_another = Piece("w", (4, 2), (0, 1), torch.ones(2, 1))  # of its two elements one was missing
    write(tmp_path / "over", [ranks[0], ranks[2], [over_another]])
    with pytest.raises(UserError, match="elements of w twice or not at all"):
        Reading(tmp_path / "over", [Piece("w", (4, 2), (2, 0), torch.ones(1, 2))])
    with pytest.raises(UserError, match="has no v"):
        Reading(tmp_path / "over", cut("v", tensor, [])[0])


def test_an_index_that_cannot_be_read_is_one_line(tmp_path):
    write(tmp_path / "s", cut("w", torch.randn(2, 2), []))
    whole = (tmp_path / "s/.metadata").read_bytes()
    for content in (b"", whole[:-20], b"\x80\x04\x8c\x04nonesuch."):
        (tmp_path / "s/.metadata").write_bytes(content)
        with pytest.raises(UserError, match=r"\.metadata cannot be read"):
            Reading(tmp_path / "s", [])

"""Rows move whole from the ranks that sampled them to those that train on them, and nowhere else."""

import json
from pathlib import Path

import pytest
import torch

from gcpo_mcore.batch import Batch
from gcpo_mcore.run.dealing import owners, snake
from gcpo_mcore.samples import Group, Prompt, Sample
from tests.launching import run

WORKER = Path(__file__).parent / "dealing_worker.py"


@pytest.mark.parametrize("processes, tensor, pipeline", [(1, 1, 1), (2, 1, 1), (3, 1, 1), (4, 2, 1), (4, 1, 2)])
@pytest.mark.parametrize("updates", [1, 2])
def test_every_row_is_where_it_is_trained(processes, tensor, pipeline, updates, tmp_path):
    out = tmp_path / "out.json"
    run(WORKER, str(out), str(tensor), str(pipeline), str(updates), processes=processes)
    shares = json.loads(out.read_text())
    data = processes // (tensor * pipeline)
    by_data_rank = {}
    for rank, share in enumerate(shares):
        data_rank = rank // tensor % data
        assert by_data_rank.setdefault(data_rank, share) == share  # those that share a model have the same rows
    numbers = sorted(int(number) for share in by_data_rank.values() for number in share)
    assert numbers == list(range(20))
    tokens = [sum(share.values()) for share in by_data_rank.values()]
    assert max(tokens) - min(tokens) <= 16 * updates  # a longest row each, at the most


def test_snake_balances_and_keeps_the_order_of_equal_rows():
    assert snake([5, 9, 1, 7], 1) == [0, 0, 0, 0]
    assert snake([5, 9, 1, 7], 2) == [1, 0, 0, 1]
    assert snake([4, 4, 4, 4], 4) == [0, 1, 2, 3]
    assert snake([3], 4) == [0]


def test_every_update_is_dealt_by_itself():
    groups = [
        Group(Prompt(str(g), "x", "", [1], ""), [Sample(i, [1] * (1 + 3 * g + i), "") for i in range(2)])
        for g in range(4)
    ]
    batch = Batch.of(groups)
    owner = owners(batch.table, 2, 2)
    for update in batch.split(2):
        rows = torch.tensor([int(g) * 2 + i for g in update.table.group.unique() for i in range(2)])
        assert sorted(owner[rows].tolist()) == [0, 0, 1, 1]


def test_split_keeps_what_belongs_together():
    groups = [
        Group(Prompt(str(g), "x", "", [1] * (g + 1), ""), [Sample(i, [g, i], "") for i in range(3)]) for g in range(5)
    ]
    batch = Batch.of(groups).choose([1, 4, 5, 9, 14])
    parts = batch.split(2)
    assert [part.table.group.tolist() for part in parts] == [[0] * 3 + [1] * 3 + [2] * 3, [3] * 3 + [4] * 3]
    for part in parts:
        for row, number in enumerate(part.mine.tolist()):
            group = int(part.table.group[number])
            assert part.response_ids[row].tolist()[:2] == [group, number % 3]
            assert len(part.prompt_ids[row]) == int(part.table.prompt_tokens[number]) == group + 1
    assert sum(len(part) for part in parts) == 5

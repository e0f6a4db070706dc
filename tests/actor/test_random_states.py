"""Random-number states in a file: back as they were, from an older file too, and nothing runs that stands in one."""

import json
import random

import numpy as np
import pytest
import torch

from gcpo_mcore.actor.random_states import random_states, set_random_states
from gcpo_mcore.base.errors import UserError
from tests.hostile_pickle import forms


def drawn():
    """What the three generators give next."""
    return torch.rand(3).tolist(), np.random.normal(size=3).tolist(), [random.gauss(0, 1) for _ in range(3)]


@pytest.fixture(autouse=True)
def others_have_their_states():
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    drawn()  # an odd number of normal ones: the fourth is kept in the state
    yield
    torch.set_rng_state(before[0])
    np.random.set_state(before[1])
    random.setstate(before[2])


def test_they_go_on_as_they_were(tmp_path):
    (tmp_path / "rank_00000.json").write_bytes(random_states())
    expected = drawn()
    set_random_states(tmp_path / "rank_00000.json")
    assert drawn() == expected


def test_those_of_an_older_checkpoint_too(tmp_path):
    states = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}
    torch.save(states, tmp_path / "rank_00000.pt")
    expected = drawn()
    set_random_states(tmp_path / "rank_00000.pt")
    assert drawn() == expected


def test_a_file_that_runs_code(tmp_path):
    for content in forms(tmp_path / "ran").values():
        for name in ("rank_00000.pt", "rank_00000.json"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(UserError, match=f"{name} has no random states"):
                set_random_states(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_other_values_are_one_line(tmp_path):
    states = json.loads(random_states())
    for change in ({"torch": "AA=="}, {"torch": 3}, {"numpy": []}, {"python": [3, [1.5], None]}, {"python": None}):
        (tmp_path / "rank_00000.json").write_text(json.dumps(states | change))
        with pytest.raises(UserError, match=r"rank_00000.json has no random states"):
            set_random_states(tmp_path / "rank_00000.json")

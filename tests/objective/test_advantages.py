"""Advantages: the all-wrong group with one golden answer, leave-one-out, uniform groups."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcpo_mcore.batch import Batch
from gcpo_mcore.samples import Group, Prompt, Sample
from tests.objective.objective_equations import REWARDS, advantages, algorithm, make_update

reward_lists = st.lists(st.lists(st.sampled_from(REWARDS), min_size=1, max_size=9), min_size=1, max_size=5)


def groups_of(rewards: list[list[float]]) -> list[Group]:
    return [
        Group(
            Prompt(f"s:{n}", "s", "", [1], ""), [Sample(i, [1] * (1 + i % 3), "", reward=r) for i, r in enumerate(rs)]
        )
        for n, rs in enumerate(rewards)
    ]


def advantages_of(rewards: list[list[float]], *overrides: str) -> torch.Tensor:
    batch = Batch.of(groups_of(rewards))
    return algorithm("algorithm=gcpo", *overrides).advantage(batch, None)[:, 0]


@pytest.mark.parametrize("size", [4, 8, 16])
@pytest.mark.parametrize("wrong", [0.0, -1.0])
def test_all_wrong_group_with_one_golden_answer(size, wrong):
    wrong_rows, golden = [Sample(i, [1], "", reward=wrong) for i in range(size)], Sample(-1, [2], "", is_golden=True)
    golden.reward, golden.is_accurate = 1.0, True
    group = Group(Prompt("s:0", "s", "", [1], ""), wrong_rows, golden)
    part = algorithm("algorithm=gcpo")
    (kept,), counts = part.select([group], step=1)
    assert counts["golden_injected"] == 1 and len(kept.samples) == size
    batch = Batch.of([kept])
    slot = int(batch.is_golden.nonzero())
    for std, of_golden, of_wrong in (
        ("sample", (size - 1) / math.sqrt(size), -1 / math.sqrt(size)),
        ("population", math.sqrt(size - 1), -1 / math.sqrt(size - 1)),
        ("none", (1 - wrong) * (1 - 1 / size), -(1 - wrong) / size),
    ):
        a = algorithm("algorithm=gcpo", f"algorithm.advantage.std={std}").advantage(batch, None)[:, 0]
        assert float(a[slot]) == pytest.approx(of_golden, abs=2e-5)
        assert a[batch.is_golden.logical_not()].tolist() == pytest.approx([of_wrong] * (size - 1), abs=2e-5)
        assert float(a.sum()) == pytest.approx(0.0, abs=1e-5)


@settings(deadline=None, max_examples=60)
@given(rewards=reward_lists)
def test_every_estimator_is_its_formula(rewards):
    for override, kind in (
        ("algorithm.advantage.std=sample", "std_n-1"),
        ("algorithm.advantage.std=population", "std_n"),
        ("algorithm.advantage.std=none", "centred"),
        ("algorithm/advantage=leave_one_out", "rloo"),
        ("algorithm/advantage=none", "raw"),
    ):
        got = advantages_of(rewards, override).tolist()
        assert got == pytest.approx(advantages(rewards, kind), abs=1e-4), kind


@settings(deadline=None, max_examples=40)
@given(rewards=st.lists(st.sampled_from(REWARDS), min_size=2, max_size=9))
def test_leave_one_out_is_the_scaled_centred_reward(rewards):
    size = len(rewards)
    centred = torch.tensor(rewards, dtype=torch.float64) - sum(rewards) / size
    got = advantages_of([rewards], "algorithm/advantage=leave_one_out")
    torch.testing.assert_close(got.double(), centred * size / (size - 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("override", ["algorithm.advantage.std=sample", "algorithm.advantage.std=population",
                                      "algorithm.advantage.std=none", "algorithm/advantage=leave_one_out"])  # fmt: skip
@pytest.mark.parametrize("size", [2, 3, 5, 6, 7, 8, 11, 13])
def test_uniform_groups_have_no_gradient(override, size):
    """Exactly none: the rounding of a group's mean, divided by its tiny std, would be an update out of nothing."""
    part = algorithm("algorithm=gcpo", override)
    for reward in (0.0, 1.0, 0.1, 0.7, 1.1, -0.3, 100.1):
        update = make_update(part, groups_of([[reward] * size, [0.0, 1.0]]), seed=size, moved=0.0)
        loss, _ = part.loss(update.logp, update.entropy, update.batch)
        (gradient,) = torch.autograd.grad(loss, update.logp)
        assert not update.batch.advantage[:size].any(), reward
        assert not gradient[:size].any(), reward
        assert gradient[size:].any()

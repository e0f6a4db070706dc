"""Golden answers beside groups: which join, which are imitated, and that the samples do not see them."""

import math
from dataclasses import replace

import pytest
import torch

from gcpo_mcore.batch import Batch
from gcpo_mcore.objective.golden_tokens import low_quantile, scheduled
from gcpo_mcore.objective.reach import ReachGate, measure_reach
from gcpo_mcore.samples import Group, Prompt, Sample
from tests.objective.objective_equations import algorithm
from tests.objective.shared_out import on_every_rank


def group(rewards, name="s:0", golden=True, tokens=3) -> Group:
    """Samples that are right where their reward is 1."""
    samples = [Sample(i, [1, 1], "", reward=r, is_accurate=r == 1) for i, r in enumerate(rewards)]
    answer = Sample(-1, [7] * tokens, "golden", is_golden=True, reward=1.0, is_accurate=True) if golden else None
    return Group(Prompt(name, "s", "", [1], ""), samples, answer)


@pytest.mark.parametrize("most, joined", [(0.0, [True, False, False]), (0.5, [True, True, False]), (1.0, [True] * 3)])
def test_groups_that_are_solved_rarely_enough_get_theirs(most, joined):
    part = algorithm("algorithm=hpt", f"algorithm.golden.max_solved={most}")
    kept, counts = part.select([group([0, 0]), group([0, 1]), group([1, 1])], step=1)
    assert [any(s.is_beside for s in g.samples) for g in kept] == joined
    assert [len(g.samples) for g in kept] == [2 + j for j in joined]  # beside the samples: none is replaced
    assert counts["golden_injected"] == sum(joined) and counts["all_right"] == 1


@pytest.mark.parametrize("advantage", ["group", "group_centred", "leave_one_out", "whitened_baseline"])
def test_the_samples_advantages_do_not_see_it(advantage):
    part = algorithm("algorithm=gcpo_reach", f"algorithm/advantage={advantage}")
    plain = Batch.of([group([0, 1, 0], golden=False), group([1, 0], golden=False)])
    kept, _ = part.select([group([0, 1, 0]), group([1, 0])], step=1)
    beside = Batch.of(kept)
    zeros = [torch.zeros_like(b.mask) for b in (plain, beside)]
    without, having = (part.weigh(b.scored(z))[0].advantage for b, z in zip((plain, beside), zeros, strict=True))
    of_samples = ~beside.table.is_beside
    torch.testing.assert_close(having[of_samples][:, :2], without, rtol=0, atol=0)
    assert not having[~of_samples].any()


def test_others_zero_leaves_alone_what_is_not_imitated():
    part = algorithm("algorithm=gcpo_reach", "algorithm.golden.others=zero")
    kept, _ = part.select([group([0, 1], "s:0"), group([0, 1], "s:1")], step=1)
    batch = Batch.of(kept)
    logp = torch.zeros_like(batch.mask)
    logp[2, 1] = -9.0  # a token of the first golden answer
    admitted, metrics = ReachGate(part.golden).admit(batch, logp, ["s:0", "s:1"])
    assert admitted.table.is_imitated.tolist() == [False, False, True, False, False, False]
    assert metrics == {"golden/imitated_fraction": 0.5, "golden/imitated_prompts": 1.0}
    assert part.weigh(admitted.scored(logp))[0].advantage.any(1).tolist() == [False, False, False, True, True, False]


def test_the_gate_has_hysteresis_for_each_answer_and_a_state():
    golden = algorithm("algorithm=gcpo_reach").golden  # below -3 nats, until -1.5
    gate, ids = ReachGate(golden), ["s:0", "s:1"]
    part = algorithm("algorithm=gcpo_reach")

    def imitated(*worst: float, gate=gate) -> list[bool]:
        kept, _ = part.select([group([0, 1], id_) for id_ in ids], step=1)
        batch = Batch.of(kept)
        logp = torch.zeros_like(batch.mask)
        logp[2, 1], logp[5, 2] = worst
        return gate.admit(batch, logp, ids)[0].table.is_imitated[batch.table.is_beside].tolist()

    assert imitated(-3.1, -2.9) == [True, False]
    assert gate.state() == ["s:0"]
    assert imitated(-2.0, -2.0) == [True, False]  # only what was out of reach is still imitated
    resumed = ReachGate(golden)
    resumed.restore(gate.state())
    assert imitated(-1.6, -1.6, gate=resumed) == [True, False]
    assert imitated(-1.5, -1.5) == [False, False]
    assert imitated(-2.0, -3.5) == [False, True]  # out of reach again only below the bound
    assert gate.state() == ["s:1"]


def test_the_gate_is_the_same_on_every_rank():
    part, ids = algorithm("algorithm=gcpo_reach"), ["s:0", "s:1", "s:2"]
    kept, _ = part.select([group([0, 1], id_, tokens=n) for id_, n in zip(ids, (2, 5, 3), strict=True)], step=1)
    batch = Batch.of(kept)
    logp = -torch.arange(batch.mask.numel()).view_as(batch.mask).float() / 8 * batch.mask
    whole, expected = ReachGate(part.golden).admit(batch, logp, ids)

    def of_rank(rows, numbers):
        gate = ReachGate(part.golden)
        admitted, metrics = gate.admit(rows, logp[numbers], ids)
        return admitted.table.is_imitated.tolist(), metrics, gate.state()

    found = on_every_rank(batch, [n % 2 for n in range(len(batch))], 2, of_rank)
    assert found[0] == found[1]
    assert found[0][:2] == (whole.table.is_imitated.tolist(), expected)
    assert 0 < expected["golden/imitated_fraction"] < 1


def test_reach_is_measured_and_absent_without_golden_answers():
    part = algorithm("algorithm=gcpo")
    kept, _ = part.select([group([0, 0], "s:0", tokens=4), group([1, 0], "s:1")], step=1)
    batch = Batch.of(kept)
    logp = torch.zeros_like(batch.mask)
    row = int(batch.is_golden.nonzero())
    logp[row] = torch.tensor([-0.5, -5.0, 0.0, -0.25])
    weighed, _ = part.weigh(batch.scored(logp))
    found = part.measure(weighed)
    assert found["golden/logp_min"] == -5.0 and found["golden/logp_q10"] == -5.0  # of 4 tokens, number floor(0.3)
    assert found["golden/reachable_fraction"] == 0.0 and found["golden/token_mass"] == pytest.approx(4 / 10)
    assert measure_reach(weighed, -5.5)["golden/reachable_fraction"] == 1.0
    without = replace(weighed, table=replace(weighed.table, is_golden=torch.zeros(len(batch), dtype=torch.bool)))
    assert measure_reach(without, -5.5) == {}


def test_no_metric_of_golden_rows_where_there_are_none():
    part = algorithm("algorithm=gcpo")
    for rewards, has in (([0, 0], True), ([0, 1], False)):
        kept, _ = part.select([group(rewards)], step=1)
        batch = Batch.of(kept)
        weighed, _ = part.weigh(batch.scored(torch.zeros_like(batch.mask)))
        rows, _ = part.begin_update(weighed, torch.zeros_like(batch.mask), 0.0)
        _, sums = part.loss(torch.zeros_like(batch.mask), torch.zeros_like(batch.mask), rows)
        assert ("golden/logp_mean" in sums) == ("golden/clip_fraction" in sums) == has


@pytest.mark.parametrize("quantile, expected", [(0.0, [-4.0, -1.0]), (0.5, [-2.0, -1.0]), (1.0, [-0.5, 0.0])])
def test_low_quantile(quantile, expected):
    logp = torch.tensor([[-1.0, -4.0, -0.5, -2.0], [0.0, -1.0, -7.0, -7.0]])
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]])
    assert low_quantile(logp, mask, quantile).tolist() == expected
    assert low_quantile(logp, torch.zeros_like(mask), quantile).tolist() == [0.0, 0.0]


def test_schedules():
    assert [scheduled("linear", 0.9, 0.1, u) for u in (0.0, 0.5, 1.0)] == pytest.approx([0.9, 0.5, 0.1])
    assert [scheduled("cosine", 0.9, 0.1, u) for u in (0.0, 0.5, 1.0)] == pytest.approx([0.9, 0.5, 0.1])
    assert scheduled("cosine", 1.0, 0.0, 0.25) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert scheduled("constant", 0.9, 0.1, 0.7) == 0.9

"""What must be equal by mathematics: between algorithms, to closed forms, and to finite differences."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcpo_mcore.batch import Batch
from gcpo_mcore.samples import Group, Prompt, Sample
from tests.objective.objective_equations import PRESETS, algorithm, make_update, ragged_groups, value_and_gradients

seeds = st.integers(0, 2**32 - 1)
CONTRASTIVE = ["conspo", "gcpo_conspo", "disco", "dpo"]


def binary_group(right: int, wrong: int) -> Group:
    samples = [
        Sample(i, [1] * (1 + i % 4), "", reward=float(i < right), is_accurate=i < right) for i in range(right + wrong)
    ]
    return Group(Prompt("s:0", "s", "", [1], ""), samples)


@settings(deadline=None, max_examples=30)
@given(groups=ragged_groups(), seed=seeds, moved=st.sampled_from([1e-4, 1e-3, 0.3]))
def test_gspo_is_gspo_token_where_the_advantage_is_the_rows(groups, seed, moved):
    results = []
    for importance in ("sequence", "sequence_token"):
        part = algorithm("algorithm=gspo", f"algorithm/importance={importance}")
        update = make_update(part, groups, seed, moved)
        results.append(value_and_gradients(part.loss(update.logp, update.entropy, update.batch)[0], update))
    for of_sequence, of_token in zip(*results, strict=True):
        torch.testing.assert_close(of_sequence, of_token, rtol=1e-6, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(right=st.integers(1, 6), wrong=st.integers(1, 6), seed=seeds, moved=st.sampled_from([1e-3, 0.3]))
def test_grpo_is_a_scaled_gap_between_right_and_wrong(right, wrong, seed, moved):
    """1/G sum_i A_i c_i = sqrt(p (1-p)) (mean of c over right - over wrong), c the mean of a row's clipped ratios."""
    part = algorithm("algorithm=grpo", "algorithm/kl=off", "algorithm.advantage.std=population")
    update = make_update(part, [binary_group(right, wrong)], seed, moved)
    loss, _ = part.loss(update.logp, update.entropy, update.batch)
    ratio, mask = (update.logp - update.batch.old_logp).exp().detach(), update.batch.mask
    bounded = torch.where(update.batch.is_accurate.unsqueeze(1), ratio.clamp(max=1.2), ratio.clamp(min=0.8))
    scores = (bounded * mask).sum(1) / mask.sum(1)
    p = right / (right + wrong)
    gap = scores[:right].mean() - scores[right:].mean()
    assert -loss.item() == pytest.approx(math.sqrt(p * (1 - p)) * gap.item(), rel=1e-4, abs=1e-6)


WITH_GROUPS = sorted(PRESETS.keys() - {"sft", "reinforce_pp", "reinforce_pp_baseline"})


@pytest.mark.parametrize("name", WITH_GROUPS)
def test_groups_without_contrast_have_no_gradient(name):
    """But for KL and entropy, which are off here. The two REINFORCE++ are left out: they subtract the batch's mean."""
    part = algorithm(f"algorithm={name}", "algorithm.entropy_coefficient=0", "algorithm/kl=off")
    groups = [binary_group(4, 0), binary_group(0, 4), binary_group(2, 2)]
    update = make_update(part, groups, seed=1, moved=1e-5)
    loss, _ = part.loss(update.logp, update.entropy, update.batch)
    (gradient,) = torch.autograd.grad(loss, update.logp)
    assert not gradient[:8].any() and gradient[8:].any()


@pytest.mark.parametrize("name", CONTRASTIVE)
@settings(deadline=None, max_examples=10)
@given(groups=ragged_groups(), seed=seeds)
def test_contrastive_gradient_by_finite_differences(name, groups, seed):
    part = algorithm(f"algorithm={name}")
    update = make_update(part, groups, seed, moved=0.3, progress=0.5)
    (gradient,) = torch.autograd.grad(part.loss(update.logp, update.entropy, update.batch)[0], update.logp)

    def value(logp: torch.Tensor) -> float:
        rows, _ = part.begin_update(update.batch, logp, 0.5)
        return float(part.loss(logp, update.entropy, rows)[0].detach())

    rng, h = torch.Generator().manual_seed(seed), 1e-5
    for _ in range(3):
        direction = torch.randn(update.logp.shape, generator=rng, dtype=torch.float64) * update.batch.mask
        at = update.logp.detach()
        slope = (value(at + h * direction) - value(at - h * direction)) / (2 * h)
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_conspo_gradient_is_the_closed_form():
    """dL/ds_i = -1/(|P| tau) sum_j w_ij, dL/ds_j = +1/(|P| tau) sum_i w_ij; they add up to 0."""
    part = algorithm("algorithm=conspo")
    update = make_update(part, [binary_group(2, 3)], seed=5, moved=0.0, progress=0.4)
    batch, (tau, m) = update.batch, (0.5, 0.2)
    s = [float(x) for x in (batch.old_logp * batch.mask).sum(1) / batch.lengths]
    w = [[math.exp((s[j] - s[i] + m) / tau) for j in (2, 3, 4)] for i in (0, 1)]
    w = [[x / (1 + sum(row)) for x in row] for row in w]
    expected = [-sum(row) / (2 * tau) for row in w] + [(w[0][j] + w[1][j]) / (2 * tau) for j in range(3)]
    got = [float(row[0]) * n for row, n in zip(batch.logp_gradient, batch.lengths, strict=True)]
    assert got == pytest.approx(expected, rel=1e-6)
    assert sum(got) == pytest.approx(0.0, abs=1e-6)


def test_conspo_margin_schedules():
    linear = algorithm("algorithm=conspo", "algorithm.surrogate.margin_rise=0.5").surrogate
    assert [linear.margin(u) for u in (0, 0.25, 0.5, 1)] == [0.0, 0.25, 0.5, 0.5]
    cosine = algorithm("algorithm=conspo", "algorithm.surrogate.margin_schedule=cosine").surrogate
    assert [cosine.margin(u) for u in (0, 0.5, 1)] == pytest.approx([0.0, 0.25, 0.5])


def test_golden_answer_gives_conspo_its_contrast():
    """An all-wrong group is skipped by conspo, and trained on by gcpo_conspo with the golden row as the right one."""
    golden = Sample(-1, [2, 2], "", is_golden=True, is_accurate=True, reward=1.0)
    for name, is_trained in (("conspo", False), ("gcpo_conspo", True)):
        part = algorithm(f"algorithm={name}")
        group = binary_group(0, 3)
        group.golden = golden
        kept, _ = part.select([group], step=1)
        batch = make_update(part, kept, seed=0, moved=0.0).batch
        assert bool(batch.logp_gradient.any()) == is_trained
        if is_trained:
            assert (batch.logp_gradient[batch.is_golden][:, :2] < 0).all()


# --- KL estimators: their expected gradients, by enumeration ----------------------------------------------------------


KL_CASES = {
    ("k1", "loss"): "zero",
    ("k2", "loss"): "reverse",
    ("k3", "loss"): "forward",
    ("k1", "unbiased"): "reverse",
    ("k2", "unbiased"): "wrong",
    ("k3", "unbiased"): "reverse",
    ("k1", "reward"): "reverse",
    ("k2", "reward"): "wrong",
    ("k3", "reward"): "wrong",
}


@pytest.mark.parametrize("estimator, place", KL_CASES)
def test_expected_gradient_of_each_kl(estimator, place):
    """One token of three: the expectation over samples is a sum. On policy: old = now."""
    choice = {"loss": "k3", "unbiased": "k3_unbiased", "reward": "k1_reward"}[place]
    part = algorithm(
        "algorithm=gspo", f"algorithm/kl={choice}", f"algorithm.kl.estimator={estimator}", "algorithm.kl.force=true",
        "algorithm.kl.coefficient=1.0",
    )  # fmt: skip
    theta = torch.tensor([0.3, -0.8, 0.1], dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([-0.5, 0.9, 0.2], dtype=torch.float64).log_softmax(0)
    logp = theta.log_softmax(0)
    p = logp.exp()
    rows = Batch.of([Group(Prompt("s:0", "s", "", [1], ""), [Sample(i, [i], "") for i in range(3)])])
    rows = replace(rows, mask=rows.mask.double()).scored(logp.detach()[:, None], ref[:, None])
    if place == "reward":
        expected_loss = -(p.detach() * part.kl.token_reward(rows)[:, 0] * logp).sum()
    else:
        expected_loss = (p.detach() * part.kl.penalty(logp[:, None], rows)[:, 0]).sum()
    (got,) = torch.autograd.grad(expected_loss, theta, retain_graph=True)
    (reverse,) = torch.autograd.grad((p * (logp - ref)).sum(), theta, retain_graph=True)
    (forward,) = torch.autograd.grad((ref.exp() * (ref - logp)).sum(), theta)
    truth = {"zero": torch.zeros(3, dtype=torch.float64), "reverse": reverse, "forward": forward}
    wanted = KL_CASES[estimator, place]
    if wanted == "wrong":
        assert all((got - t).abs().max() > 1e-2 for t in (reverse, forward))
    else:
        torch.testing.assert_close(got, truth[wanted], rtol=1e-9, atol=1e-12)

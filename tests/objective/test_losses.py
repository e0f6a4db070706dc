"""Every shipped algorithm, and every part switched alone, is its equation: loss and gradient, off policy."""

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gcpo_mcore.samples import Group, Prompt, Sample
from tests.objective.objective_equations import (
    DAPO,
    GCPO,
    GRPO,
    OPEN,
    PRESETS,
    SFT,
    BesideSpec,
    algorithm,
    loss,
    make_update,
    ragged_groups,
    value_and_gradients,
)
from tests.objective.shared_out import on_every_rank

BLEND = ["algorithm.golden.blend=true", "algorithm.golden.weight=0.3"]
CASES = {
    **{name: ([f"algorithm={name}"], spec) for name, spec in PRESETS.items()},
    "gcpo token": (["algorithm=gcpo", "algorithm/importance=token"], GCPO.but(ratio="token", low=0.2, high=0.2)),
    "gcpo product": (
        ["algorithm=gcpo", "algorithm.importance.length_normalised=false"],
        GCPO.but(ratio="product"),
    ),
    "gcpo k3": (["algorithm=gcpo", "algorithm/kl=k3"], GCPO.but(kl="k3")),
    "gcpo k2": (["algorithm=gcpo", "algorithm/kl=k2", "algorithm.kl.coefficient=0.3"], GCPO.but(kl="k2", beta=0.3)),
    "gcpo k1 forced": (["algorithm=gcpo", "algorithm/kl=k1", "algorithm.kl.force=true"], GCPO.but(kl="k1")),
    "gcpo golden off": (["algorithm=gcpo", "algorithm/golden=off"], GCPO),
    "gcpo golden always": (["algorithm=gcpo", "algorithm/golden=always"], GCPO),
    "gcpo dual clip": (
        ["algorithm=gcpo", "algorithm/importance=token", "algorithm.surrogate.dual_clip=3.0"],
        GCPO.but(ratio="token", low=0.2, high=0.2, dual_clip=3.0),
    ),
    "gcpo constant": (
        ["algorithm=gcpo", "algorithm/reduction=constant", "rollout.sampling.max_response_tokens=7"],
        GCPO.but(reduction="constant", constant_tokens=7),
    ),
    "gcpo sequence sum": (["algorithm=gcpo", "algorithm/reduction=sequence_sum"], GCPO.but(reduction="sequence_sum")),
    "gcpo token mean": (["algorithm=gcpo", "algorithm/reduction=token_mean"], GCPO.but(reduction="token_mean")),
    "gcpo tis": (["algorithm=gcpo", "algorithm/mismatch=tis"], GCPO.but(mismatch=("cap", "token", 0, 2.0, None))),
    "gcpo rloo": (["algorithm=gcpo", "algorithm/advantage=leave_one_out"], GCPO.but(advantage="rloo")),
    "gcpo std of n": (["algorithm=gcpo", "algorithm.advantage.std=population"], GCPO.but(advantage="std_n")),
    "grpo tis": (
        ["algorithm=grpo", "algorithm/mismatch=tis", "algorithm.mismatch.cap=1.2"],
        GRPO.but(mismatch=("cap", "token", 0, 1.2, None)),
    ),
    "gcpo sequence token": (
        ["algorithm=gcpo", "algorithm/importance=sequence_token"],
        GCPO.but(ratio="sequence_token"),
    ),
    "gcpo on policy": (["algorithm=gcpo", "algorithm/importance=none"], GCPO.but(ratio="none", low=OPEN, high=OPEN)),
    "gcpo golden sft": (["algorithm=gcpo", "algorithm.golden.ratio=sft"], GCPO.but(golden="sft")),
    "gcpo golden luffy": (["algorithm=gcpo", "algorithm.golden.ratio=luffy"], GCPO.but(golden="luffy")),
    "gcpo golden range": (
        ["algorithm=gcpo", "algorithm.golden.clip_low=0.1", "algorithm.golden.clip_high=0.3"],
        GCPO.but(golden_low=0.1, golden_high=0.3),
    ),
    "gcpo golden weight": (["algorithm=gcpo", "algorithm.golden.weight=0.25"], GCPO.but(golden_weight=0.25)),
    "sapo golden sft": (
        ["algorithm=sapo", "algorithm/golden=all_wrong", "algorithm.golden.ratio=sft"],
        PRESETS["sapo"].but(golden="sft"),
    ),
    "gcpo group mean": (["algorithm=gcpo", "algorithm/reduction=group_mean"], GCPO.but(reduction="group_mean")),
    "gcpo k3 unbiased": (["algorithm=gcpo", "algorithm/kl=k3_unbiased"], GCPO.but(kl="k3", kl_place="unbiased")),
    "gcpo k1 unbiased": (
        ["algorithm=gcpo", "algorithm/kl=k3_unbiased", "algorithm.kl.estimator=k1"],
        GCPO.but(kl="k1", kl_place="unbiased"),
    ),
    "gcpo k1 in the reward": (
        ["algorithm=gcpo", "algorithm/kl=k1_reward"],
        GCPO.but(kl="k1", kl_place="reward", beta=0.03),
    ),
    "gcpo whitened": (["algorithm=gcpo", "algorithm/advantage=whitened"], GCPO.but(advantage="whitened")),
    "gcpo token-wise": (
        [
            "algorithm=gcpo",
            "algorithm/importance=sequence_token",
            "algorithm/advantage=whitened",
            "algorithm/kl=k1_reward",
        ],
        GCPO.but(ratio="sequence_token", advantage="whitened", kl="k1", kl_place="reward", beta=0.03),
    ),
    "grpo cut rows out": (["algorithm=grpo", "algorithm.filter.mask_truncated=true"], GRPO.but(mask_truncated=True)),
    "reinforce_pp cut rows out": (
        ["algorithm=reinforce_pp", "algorithm.filter.mask_truncated=true"],
        PRESETS["reinforce_pp"].but(mask_truncated=True),
    ),
    "dr_grpo cut rows out": (
        ["algorithm=dr_grpo", "algorithm.filter.mask_truncated=true"],
        PRESETS["dr_grpo"].but(mask_truncated=True),
    ),
    "conspo cut rows out": (
        ["algorithm=conspo", "algorithm.filter.mask_truncated=true"],
        PRESETS["conspo"].but(mask_truncated=True),
    ),
    "conspo k3": (["algorithm=conspo", "algorithm/kl=k3"], PRESETS["conspo"].but(kl="k3")),
    "conspo trust region": (
        ["algorithm=conspo", "algorithm.surrogate.trust_region_kl=0.01", "algorithm.surrogate.trust_region_penalty=10"],
        PRESETS["conspo"].but(trust_region=(0.01, 10.0)),
    ),
    "grpo tis sequence": (
        ["algorithm=grpo", "algorithm/mismatch=tis_sequence"],
        GRPO.but(mismatch=("cap", "sequence", 0, 2.0, None)),
    ),
    "grpo tis veto": (
        ["algorithm=grpo", "algorithm/mismatch=tis", "algorithm.mismatch.veto=0.4"],
        GRPO.but(mismatch=("cap", "token", 0, 2.0, 0.4)),
    ),
    "grpo mis": (["algorithm=grpo", "algorithm/mismatch=mis"], GRPO.but(mismatch=("band", "token", 0.5, 2.0, None))),
    "grpo mis sequence": (
        ["algorithm=grpo", "algorithm/mismatch=mis_sequence"],
        GRPO.but(mismatch=("band", "sequence", 0.5, 2.0, None)),
    ),
    "grpo icepop": (
        ["algorithm=grpo", "algorithm/mismatch=icepop"],
        GRPO.but(mismatch=("band", "token", 0.5, 5.0, None)),
    ),
    "grpo geometric": (
        [
            "algorithm=grpo",
            "algorithm/mismatch=reject_geometric",
            "algorithm.mismatch.low=0.7",
            "algorithm.mismatch.high=1.5",
        ],
        GRPO.but(mismatch=("reject", "geometric", 0.7, 1.5, None)),
    ),
    "grpo entropy": (["algorithm=grpo", "algorithm.entropy_coefficient=0.05"], GRPO.but(entropy=0.05)),
    "dapo without std": (["algorithm=dapo", "algorithm.advantage.std=none"], DAPO.but(advantage="centred")),
    "gcpo golden schedule": (
        ["algorithm=gcpo", "algorithm.golden.schedule=linear", "algorithm.golden.weight_end=0.2"],
        GCPO.but(golden_schedule="linear", golden_weight_end=0.2),
    ),
    **{
        f"gcpo golden {kind}": (
            ["algorithm=gcpo", f"algorithm.golden.token_weight='{kind}'", "algorithm.golden.ratio=sft"],
            GCPO.but(token_weight=kind, golden="sft"),
        )
        for kind in ("p(1-p)", "p", "exp(-H)")
    },
    "luffy alone": (
        ["algorithm=luffy", "algorithm.golden.others=zero", "algorithm.golden.advantage=1"],
        PRESETS["luffy"].but(golden_alone=True),
    ),
    "reach by a quantile, unreachable tokens alone": (
        [
            "algorithm=gcpo_reach",
            "algorithm.golden.reach_logp=-2",
            "algorithm.golden.reach_quantile=0.5",
            "algorithm.golden.token_weight=unreachable",
            "algorithm.golden.others=zero",
        ],
        GCPO.but(beside=BesideSpec(reach=(-2.0, 0.5), token_weight="unreachable", others_zero=True)),
    ),
    **{
        f"{name} beside": (
            [
                f"algorithm={name}",
                "algorithm/golden=beside",
                "algorithm.golden.blend=true",
                "algorithm.golden.weight=0.3",
            ],
            PRESETS[name].but(beside=BesideSpec(weight=0.3, blend=True)),
        )
        for name in ("conspo", "disco", "rloo", "reinforce_pp", "reinforce_pp_baseline", "gmpo", "gspo")
    },
    "beside with a group mean, cut rows out, entropy, k3": (
        [
            "algorithm=gcpo",
            "algorithm/golden=beside",
            "algorithm/reduction=group_mean",
            "algorithm.filter.mask_truncated=true",
            "algorithm.entropy_coefficient=0.05",
            "algorithm/kl=k3",
        ],
        GCPO.but(reduction="group_mean", mask_truncated=True, entropy=0.05, kl="k3", beside=BesideSpec()),
    ),
    "conspo against all": (
        ["algorithm=conspo", "algorithm.surrogate.denominator=all"],
        PRESETS["conspo"].but(denominator="all"),
    ),
    "sft entropy": (["algorithm=sft", "algorithm.entropy_coefficient=0.01"], SFT.but(entropy=0.01)),
}

small = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
seeds = st.integers(0, 2**32 - 1)
moves = st.sampled_from([1e-4, 1e-3, 0.1, 0.5, 2.0])


def kept_groups(part, groups):
    kept, _ = part.select(groups, step=1)
    assume(kept)
    return kept


def close(ours, theirs):
    torch.testing.assert_close(ours.double(), theirs, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("case", CASES)
@settings(small, max_examples=30)
@given(groups=ragged_groups(), seed=seeds, moved=moves, progress=st.sampled_from([0.0, 0.3, 0.9]))
def test_loss_and_gradient_are_the_equation(case, groups, seed, moved, progress):
    overrides, spec = CASES[case]
    part = algorithm(*overrides)
    update = make_update(part, kept_groups(part, groups), seed, moved, progress)
    ours, sums = part.loss(update.logp, update.entropy, update.batch)
    theirs = loss(update.rows, spec, progress)
    for got, wanted in zip(value_and_gradients(ours, update), value_and_gradients(theirs, update), strict=True):
        close(got, wanted)
    close(sums["actor/loss"][0], ours.detach())


@pytest.mark.parametrize("case", [*PRESETS, "gcpo constant", "grpo tis", "grpo entropy", "gcpo golden luffy"])
@settings(small, max_examples=20)
@given(groups=ragged_groups(), seed=seeds, data=st.data())
def test_microbatch_shares_add_up(case, groups, seed, data):
    overrides, _ = CASES[case]
    part = algorithm(*overrides)
    update = make_update(part, kept_groups(part, groups), seed, 0.3)
    whole = value_and_gradients(part.loss(update.logp, update.entropy, update.batch)[0], update)
    rows = data.draw(st.permutations(range(len(update.batch))))
    size = data.draw(st.integers(1, len(rows)))
    added = [torch.zeros_like(x) for x in whole]
    for start in range(0, len(rows), size):
        part_of = rows[start : start + size]
        micro = update.batch.choose(part_of)
        share, _ = part.loss(update.logp[part_of], update.entropy[part_of], micro)
        added = [a + x for a, x in zip(added, value_and_gradients(share, update), strict=True)]
    for got, wanted in zip(added, whole, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


@settings(small, max_examples=20)
@given(groups=ragged_groups(), seed=seeds)
def test_what_stands_on_padding_does_not_matter(groups, seed):
    part = algorithm("algorithm=grpo", "algorithm/mismatch=tis")
    update = make_update(part, kept_groups(part, groups), seed, 0.3)
    before, _ = part.loss(update.logp, update.entropy, update.batch)
    padding = update.batch.mask == 0
    after, _ = part.loss(update.logp.masked_fill(padding, -7.0), update.entropy.masked_fill(padding, 9.0), update.batch)
    assert torch.equal(before, after)


@settings(small, max_examples=20)
@given(groups=ragged_groups(), seed=seeds)
def test_mean_reductions_weigh_one_in_all(groups, seed):
    for reduction in ("sequence_mean", "token_mean"):
        part = algorithm("algorithm=gcpo", f"algorithm/reduction={reduction}")
        batch = make_update(part, kept_groups(part, groups), seed, 0.3).batch
        assert float(batch.loss_weight.sum()) == pytest.approx(1.0, abs=1e-6)
        assert not batch.loss_weight[batch.mask == 0].any()


def test_clip_fraction_counts_the_tokens_without_gradient():
    part = algorithm("algorithm=gcpo", "algorithm/importance=token")
    group = Group(Prompt("s:0", "s", "", [1], ""), [Sample(0, [1, 1], "", reward=1.0), Sample(1, [1, 1], "")])
    update = make_update(part, [group], seed=0, moved=0.0)
    logp = (update.batch.old_logp + torch.tensor([[0.5, 0.0], [0.5, -0.5]])).requires_grad_()
    loss_, sums = part.loss(logp, update.entropy, update.batch)
    (gradient,) = torch.autograd.grad(loss_, logp)
    # A > 0: clipped above. A < 0: not clipped above, clipped below.
    assert (gradient == 0).tolist() == [[True, False], [False, True]]
    clipped, tokens = sums["actor/clip_fraction"]
    assert (float(clipped), float(tokens)) == (2.0, 4.0)


def test_golden_rows_are_never_corrected_for_mismatch():
    part = algorithm("algorithm=gcpo", "algorithm/mismatch=tis", "algorithm.golden.slot=first")
    golden = Sample(-1, [2, 2, 2], "", is_golden=True, is_accurate=True, reward=1.0)
    group = Group(Prompt("s:0", "s", "", [1], ""), [Sample(i, [1, 1], "") for i in range(3)], golden)
    kept, _ = part.select([group], step=1)
    update = make_update(part, kept, seed=3, moved=0.1)
    assert update.batch.is_golden.tolist() == [True, False, False]
    assert update.batch.surrogate_weight[0].tolist() == [1.0, 1.0, 1.0]
    assert torch.equal(update.batch.rollout_logp[0], update.batch.old_logp[0])
    assert (update.batch.surrogate_weight[1:, :2] != 1).all()


@pytest.mark.parametrize("case", CASES)
@settings(small, max_examples=8)
@given(groups=ragged_groups(), seed=seeds, data=st.data())
def test_rows_that_are_shared_out_add_up(case, groups, seed, data):
    """Every rank has some of the rows, perhaps none; their losses, gradients and metrics are those of one rank."""
    overrides, _ = CASES[case]
    part = algorithm(*overrides)
    update = make_update(part, kept_groups(part, groups), seed, 0.3, progress=0.4)
    whole = value_and_gradients(part.loss(update.logp, update.entropy, update.batch)[0], update)
    weighed, expected = part.weigh(update.scored)
    expected |= part.measure(weighed)
    ranks = data.draw(st.integers(2, 3))
    owner = data.draw(st.lists(st.integers(0, ranks - 1), min_size=len(update.batch), max_size=len(update.batch)))

    def of_rank(scored, rows):
        weighed, metrics = part.weigh(scored)
        metrics |= part.measure(weighed)
        mine, _ = part.begin_update(weighed, update.logp.detach()[rows], 0.4)
        return part.loss(update.logp[rows], update.entropy[rows], mine)[0], metrics

    added = [torch.zeros_like(x) for x in whole]
    for share, metrics in on_every_rank(update.scored, owner, ranks, of_rank):
        added = [a + x for a, x in zip(added, value_and_gradients(share, update), strict=True)]
        assert metrics == pytest.approx(expected, rel=1e-5, abs=1e-6)
    for got, wanted in zip(added, whole, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
@settings(small, max_examples=8)
@given(groups=ragged_groups(), seed=seeds)
def test_old_logprobs_may_be_the_updates_own(case, groups, seed):
    """What an update's own forward pass gives does as well as a pass before it, to the bit; else the part says so."""
    overrides, _ = CASES[case]
    part = algorithm(*overrides)
    update = make_update(part, kept_groups(part, groups), seed, moved=0.0)
    before, _ = part.weigh(update.scored)
    if part.needs_old_logp:
        return
    weighed, _ = part.weigh(update.scored.scored(None, update.scored.ref_logp))
    assert not weighed.has_old_logp and weighed.old_logp.isnan().all()
    now = update.logp.detach()
    rows, _ = part.begin_update(weighed, now, 0.0)
    expected = value_and_gradients(part.loss(update.logp, update.entropy, update.batch)[0], update)
    found = value_and_gradients(part.loss(update.logp, update.entropy, rows)[0], update)
    for got, wanted in zip(found, expected, strict=True):
        assert torch.equal(got, wanted)
    assert part.measure(part.settle(weighed, now)) == part.measure(before)

"""Which groups are trained on: golden injection, filters, and the errors of parts that do not exist."""

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.objective.advantage import Advantage
from gcpo_mcore.objective.golden import Golden
from gcpo_mcore.objective.surrogate import Surrogate
from gcpo_mcore.samples import Group, Prompt, Sample
from tests.objective.objective_equations import PRESETS, algorithm


def group(rewards, accurate=(), golden=True, lengths=None, prompt_id="s:0") -> Group:
    """A group with these rewards; `accurate` are the indices of the accurate samples. golden: True, 'wrong' or None."""
    lengths = lengths or [2] * len(rewards)
    samples = [
        Sample(i, [1] * n, f"sampled {i}", reward=r, is_accurate=i in accurate)
        for i, (r, n) in enumerate(zip(rewards, lengths, strict=True))
    ]
    answer = Sample(-1, [7, 8, 9], "golden", is_golden=True, reward=1.0, is_accurate=golden is True) if golden else None
    return Group(Prompt(prompt_id, "s", "", [1], ""), samples, answer)


def gcpo(*overrides):
    return algorithm("algorithm=gcpo", *overrides)


def golden_slots(group: Group) -> list[int]:
    return [i for i, s in enumerate(group.samples) if s.is_golden]


@pytest.mark.parametrize(
    "slot, expected",
    [("first", 0), ("longest", 2), ("lowest_reward", 3)],
)
def test_slots(slot, expected):
    made = group([0.3, 0.2, 0.2, 0.1, 0.1], lengths=[2, 3, 5, 5, 1])
    (kept,), counts = gcpo(f"algorithm.golden.slot={slot}").select([made], step=1)
    assert golden_slots(kept) == [expected]
    assert kept.samples[expected].index == expected
    assert kept.samples[expected].response_ids.tolist() == [7, 8, 9]
    assert [s.response_text for i, s in enumerate(kept.samples) if i != expected] == [
        f"sampled {i}" for i in range(5) if i != expected
    ]
    assert counts["golden_injected"] == counts["all_wrong"] == 1


def test_random_slot_belongs_to_prompt_and_step():
    part = gcpo()

    def slot(prompt_id, step):
        (kept,), _ = part.select([group([0.0] * 8, prompt_id=prompt_id)], step)
        (found,) = golden_slots(kept)
        return found

    over_steps = [slot("s:0", step) for step in range(64)]
    assert over_steps == [slot("s:0", step) for step in range(64)]
    assert set(over_steps) == set(range(8))
    assert {slot(f"s:{n}", 1) for n in range(64)} == set(range(8))


def test_due_by_accuracy_not_by_reward():
    part = gcpo()
    rewarded_but_wrong = group([0.9, 0.4, 0.0])
    right_but_unrewarded = group([-1.0, -1.0, -1.0], accurate=[1])
    kept, counts = part.select([rewarded_but_wrong, right_but_unrewarded], step=1)
    assert [len(golden_slots(g)) for g in kept] == [1, 0]
    assert (counts["all_wrong"], counts["golden_injected"]) == (1, 1)


def test_right_and_mixed_groups_stay_as_sampled():
    kept, counts = gcpo().select([group([1, 1], accurate=[0, 1]), group([0, 1], accurate=[1])], step=1)
    assert [golden_slots(g) for g in kept] == [[], []]
    assert (counts["all_right"], counts["all_wrong"], counts["golden_injected"], counts["kept"]) == (1, 0, 0, 2)


def test_a_group_without_a_good_golden_answer_stays_and_is_counted():
    kept, counts = gcpo().select([group([0, 0], golden=None), group([0, 0], golden="wrong"), group([0, 0])], step=1)
    assert [len(golden_slots(g)) for g in kept] == [0, 0, 1]
    assert (counts["golden_missing"], counts["golden_rejected"], counts["golden_injected"]) == (1, 1, 1)
    assert (counts["all_wrong"], counts["kept"]) == (3, 3)


def test_a_missing_golden_answer_counts_only_where_one_is_due():
    _, counts = gcpo().select([group([0, 1], accurate=[1], golden=None)], step=1)
    assert counts["golden_missing"] == 0


def test_always_replaces_one_in_every_group():
    kept, counts = gcpo("algorithm/golden=always").select([group([0, 0]), group([1, 1], accurate=[0, 1])], step=1)
    assert [len(golden_slots(g)) for g in kept] == [1, 1]
    assert counts["golden_injected"] == 2


def test_off_neither_injects_nor_asks_for_golden_answers():
    part = gcpo("algorithm/golden=off")
    kept, counts = part.select([group([0, 0])], step=1)
    assert golden_slots(kept[0]) == [] and counts["golden_injected"] == counts["golden_missing"] == 0
    assert not part.golden.needs_golden and gcpo().golden.needs_golden


def test_only_trains_on_golden_answers_alone():
    part = algorithm("algorithm=sft")
    assert part.golden.rollouts_per_prompt(8) == 0 and gcpo().golden.rollouts_per_prompt(8) == 8
    kept, counts = part.select([group([]), group([], golden=None), group([], golden="wrong")], step=1)
    assert [[s.response_text for s in g.samples] for g in kept] == [["golden"]]
    assert (counts["golden_injected"], counts["golden_missing"], counts["golden_rejected"]) == (1, 1, 1)
    assert (counts["all_wrong"], counts["kept"]) == (0, 1)


def test_drop_uniform_counts():
    part = algorithm("algorithm=dapo")
    groups = [
        group([0, 0]),
        group([0, 0], golden=None),
        group([1, 1], accurate=[0, 1]),
        group([0, 1], accurate=[1]),
    ]
    kept, counts = part.select(groups, step=1)
    assert [g is groups[3] for g in kept] == [True]
    assert (counts["dropped_all_wrong"], counts["dropped_all_right"], counts["dropped_other"]) == (2, 1, 0)
    assert (counts["all_wrong"], counts["all_right"], counts["kept"]) == (2, 1, 1)
    assert part.filter.rounds_per_step == 10 and not part.filter.stop_at_cap


def test_drop_uniform_comes_after_injection():
    part = gcpo("algorithm/filter=drop_uniform", "algorithm.filter.at_cap=stop")
    kept, counts = part.select([group([0, 0]), group([0, 0], golden=None)], step=1)
    assert len(kept) == 1 and len(golden_slots(kept[0])) == 1
    assert counts["dropped_all_wrong"] == 1
    assert part.filter.rounds_per_step == 1 and part.filter.stop_at_cap


@pytest.mark.parametrize(
    "kind, wrong, near",
    [
        (Golden, "all_wrnog", "all_wrong"),
        (Surrogate, "cliped", "clipped"),
        (Advantage, "leave_on_out", "leave_one_out"),
    ],
)
def test_unknown_option_names_the_nearest(kind, wrong, near):
    with pytest.raises(
        UserError, match=rf"unknown {kind.__name__.lower()} '{wrong}' \(nearest: {near}\); known: .*{near}"
    ):
        kind.model_validate({"name": wrong})


REFUSED = {
    "algorithm/kl=k1": r"estimator k1 .*zero",
    "algorithm/kl=k2 algorithm.kl.unbiased=true": r"estimator k2 times the ratio",
    "algorithm/kl=k1_reward algorithm.kl.estimator=k3": r"estimator k3 in the reward",
    "algorithm/surrogate=policy_gradient": r"policy_gradient has no importance ratio.*algorithm/importance=none",
    "algorithm/surrogate=conspo": r"conspo compares the sequences.*algorithm/advantage=none",
    "algorithm/surrogate=gmpo": r"gmpo clips every token's ratio.*algorithm/importance=token",
    "algorithm=gmpo algorithm/advantage=whitened": r"one loss per sequence.*whitened",
    "algorithm=conspo algorithm/importance=token": r"conspo.*algorithm/importance=none",
    "algorithm=conspo algorithm/reduction=token_mean": r"conspo.*algorithm/reduction=group_mean",
    "algorithm=conspo algorithm/mismatch=tis": r"conspo.*algorithm/mismatch=off",
    "algorithm=conspo algorithm/kl=k1_reward": r"kl=reward adds to a reward that .*conspo",
    "algorithm=gcpo_conspo algorithm.golden.ratio=sft": r"golden\.ratio=sft.*no ratio",
    "algorithm=gcpo_conspo algorithm.golden.weight=2": r"golden\.weight=2",
    "algorithm=sapo algorithm/golden=always_luffy": r"golden\.ratio=luffy shapes the ratio itself",
    "algorithm=sapo algorithm/golden=all_wrong algorithm.golden.clip_high=0.3": r"clip_high need .*surrogate=clipped",
    "algorithm=gcpo algorithm.golden.ratio=sft algorithm.golden.clip_low=0.1": r"clip_low .*golden\.ratio=old",
    "algorithm=gcpo_conspo algorithm.golden.token_weight=p": r"golden\.token_weight=p: .*weighs no row",
    "algorithm=conspo algorithm/golden=all_wrong algorithm.golden.advantage=1": r"golden\.advantage=1\.0: .*no row",
    "algorithm=gcpo algorithm.golden.schedule=linear": r"schedule=linear needs an algorithm\.golden\.weight_end",
    "algorithm=gcpo algorithm.golden.weight_end=0.5": r"weight_end=0\.5 would do nothing: .*schedule=constant",
    "algorithm=chord algorithm.golden.schedule=constant": r"weight_end=0\.05 would do nothing",
    "algorithm=gcpo algorithm.golden.token_weight=p": r"importance=sequence all tokens .*same gradient",
    "algorithm=gmpo algorithm/golden=always algorithm.golden.ratio=sft algorithm.golden.token_weight=p": r"same grad",
    "algorithm=conspo algorithm/golden=beside_hpt": r"golden\.others=zero: .*conspo weighs no row",
    "algorithm=chord algorithm.golden.weight=1.5": r"blend=true gives the samples 1 - weight",
    "algorithm=gcpo_reach algorithm.golden.reach_hysteresis=4": r"reach_hysteresis=4\.0 is above 0",
    "algorithm=sft algorithm/surrogate=conspo algorithm/reduction=group_mean": r"groups of one",
    "algorithm=conspo trainer.samples_per_prompt=1": r"group of one has no contrast",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_a_combination_without_sense_is_refused_with_its_reason(overrides):
    with pytest.raises(UserError, match=REFUSED[overrides]):
        algorithm(*overrides.split())


@pytest.mark.parametrize(
    "overrides",
    [
        "algorithm/kl=k1",
        "algorithm/kl=k2 algorithm.kl.unbiased=true",
        "algorithm/kl=k1_reward algorithm.kl.estimator=k2",
    ],
)
def test_a_wrong_kl_can_be_forced(overrides):
    assert algorithm("algorithm=grpo", *overrides.split(), "algorithm.kl.force=true").kl.force


def test_a_reference_model_is_asked_for_only_where_it_is_used():
    with_reference = {name for name in PRESETS if algorithm(f"algorithm={name}").needs_reference}
    assert with_reference == {"grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline", "dpo"}


def test_dropped_by_accuracy_or_by_reward():
    """A wrong group whose rewards differ by a bonus has an advantage, but nothing right in it."""
    shaped, uniform = group([0.0, -0.5]), group([1.0, 1.0], accurate=[0])
    for by, kept_group in (("accuracy", uniform), ("reward", shaped)):
        kept, counts = algorithm("algorithm=dapo", f"algorithm.filter.by={by}").select([shaped, uniform], step=1)
        assert [g is kept_group for g in kept] == [True]
        assert counts["dropped_all_wrong" if by == "accuracy" else "dropped_other"] == 1


def test_history_passes_over_what_was_all_right():
    skips = algorithm("algorithm=srpo").filter.skips
    assert [skips(a) for a in (None, 0.0, 0.5, 1.0)] == [False, False, False, True]
    assert not any(algorithm("algorithm=grpo").filter.skips(a) for a in (None, 0.0, 1.0))

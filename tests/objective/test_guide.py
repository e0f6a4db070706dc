"""Guides: which groups are sampled again, behind how much of their golden answer, and what is refused."""

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.samples import Group, Prompt, Sample
from tests.objective.objective_equations import algorithm

REFUSED = {
    "algorithm=sft algorithm/guide=fixed": r"guide=fixed .*golden=only needs whole ones",
    "algorithm=gcpo_reach algorithm/guide=adaptive": r"guide=adaptive .*golden=beside needs whole ones",
    "algorithm=gcpo algorithm/guide=cascade algorithm.guide.fraction_max=0.1": r"fraction=0\.2 is above .*max=0\.1",
}


def text(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def group(rewards: list[float], golden: float | None = 1.0) -> Group:
    samples = [Sample(i, [1, 1], "", reward=r, is_accurate=r == 1) for i, r in enumerate(rewards)]
    answer = None if golden is None else Sample(-1, [7], "g", is_golden=True, is_accurate=golden == 1)
    return Group(Prompt("s:0", "s", "", [1], ""), samples, answer)


@pytest.mark.parametrize(
    "each, is_due", [(([0, 0], 1.0), True), (([0, 1], 1.0), False), (([0, 0], None), False), (([0, 0], 0.0), False)]
)
def test_all_wrong_groups_with_a_verified_golden_answer_are_due(each, is_due):
    assert algorithm("algorithm=guided_gcpo").guide.is_due(group(*each)) == is_due
    assert not algorithm("algorithm=gcpo").guide.is_due(group(*each))


@pytest.mark.parametrize(
    "option, expected", [("fixed", [0.4] * 4), ("cascade", [0.4, 0.6, 0.8, 0.8]), ("adaptive", [0.4, 0.6, 0.8, 0.6])]
)
def test_a_share_follows_what_came_of_it(option, expected):
    more = [] if option == "fixed" else ["algorithm.guide.change=0.2", "algorithm.guide.fraction_max=0.8"]
    guide = algorithm("algorithm=gcpo", f"algorithm/guide={option}", "algorithm.guide.fraction=0.4", *more).guide
    found = [guide.first]
    for is_solved in (False, False, True):
        found.append(guide.next(found[-1], is_solved))
    assert found == pytest.approx(expected)


def test_a_prefix_is_cut_at_a_token_or_behind_a_step_and_never_has_the_last():
    ids = [ord(c) for c in "ab;cd;ef"]
    by_token = algorithm("algorithm=guided_gcpo").guide
    assert [by_token.length(ids, f, text) for f in (0.0, 0.1, 0.5, 1.0)] == [0, 0, 4, 7]
    by_step = algorithm("algorithm=guided_gcpo", 'algorithm.guide.cut_after=[";"]').guide
    assert [by_step.length(ids, f, text) for f in (0.3, 0.5, 0.8, 1.0)] == [0, 3, 6, 6]


@pytest.mark.parametrize("overrides", REFUSED)
def test_a_combination_without_sense_is_refused(overrides):
    with pytest.raises(UserError, match=REFUSED[overrides]):
        algorithm(*overrides.split())

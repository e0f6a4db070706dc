"""The mixture: exact proportions, every row once per epoch, exact resume, refusal of other data."""

import json
from collections import Counter

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.cursor import Mixture, permutation
from gcpo_mcore.samples import Prompt


def prompts(name, n):
    return [Prompt(f"{name}:{i}", name, str(i), [i], str(i)) for i in range(n)]


def mixture(seed=0, easy=7, hard=5, weights=(0.5, 0.5)):
    sources = {"easy": prompts("easy", easy), "hard": prompts("hard", hard)}
    return Mixture(sources, dict(zip(sources, weights, strict=True)), seed)


def ids(taken):
    return [p.id for p in taken]


def test_half_and_half_is_exact_in_every_batch():
    cursor = mixture(easy=100, hard=30)
    for _ in range(20):
        assert Counter(p.source for p in cursor.take(16)) == {"easy": 8, "hard": 8}


@pytest.mark.parametrize("weights", [(0.1, 0.3), (1, 3), (0.7, 0.3), (5, 1)])
def test_the_proportion_is_never_off_by_a_prompt(weights):
    cursor, share = mixture(weights=weights), weights[0] / sum(weights)
    easy = 0
    for n in range(1, 200):
        easy += cursor.take(1)[0].source == "easy"
        assert abs(easy - n * share) < 1


def test_only_the_ratio_of_weights_matters():
    assert ids(mixture(weights=(0.1, 0.3)).take(50)) == ids(mixture(weights=(1, 3)).take(50))


def test_every_epoch_shows_every_row_once_in_another_order():
    cursor = Mixture({"only": prompts("only", 20)}, {"only": 1.0}, seed=3)
    first, second = ids(cursor.take(20)), ids(cursor.take(20))
    assert sorted(first) == sorted(second) == sorted(ids(prompts("only", 20)))
    assert first != second


def test_the_order_is_fixed_by_seed_source_and_epoch():
    fixed = [5, 4, 1, 6, 0, 2, 3, 7]  # whatever the machine, the version, the process
    assert permutation("0/easy/0", 8).tolist() == fixed
    assert ids(mixture(seed=0).take(40)) == ids(mixture(seed=0).take(40)) != ids(mixture(seed=1).take(40))


@pytest.mark.parametrize("before", [0, 1, 5, 13, 14, 40])
def test_resume_is_exact_across_epochs(before):
    straight = mixture(weights=(0.6, 0.4))
    expected = ids(straight.take(before)), ids(straight.take(37))
    cut = mixture(weights=(0.6, 0.4))
    assert ids(cut.take(before)) == expected[0]
    state = json.loads(json.dumps(cut.state(), sort_keys=True))
    resumed = mixture(weights=(0.6, 0.4))
    resumed.take(3)  # where it stood before does not matter
    resumed.restore(state)
    assert ids(resumed.take(37)) == expected[1]
    assert resumed.state() == straight.state()


def test_take_in_parts_is_take_at_once():
    parts, whole = mixture(), mixture()
    assert ids(parts.take(5)) + ids(parts.take(7)) == ids(whole.take(12))


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"seed": 1}, "saved with seed 0, this run has seed 1"),
        ({"easy": 8}, "source 'easy' has rows 8, the data cursor was saved with 7"),
        ({"weights": (0.5, 0.25)}, "source 'hard' has weight 1/4, the data cursor was saved with 1/2"),
    ],
)
def test_restore_refuses_other_data_and_stays_put(other, complaint):
    if "easy" in other:  # the row count is compared before the fingerprint
        assert "rows" in complaint
    cursor = mixture(**other)
    before = cursor.state()
    with pytest.raises(UserError) as error:
        cursor.restore(mixture().state())
    assert complaint in str(error.value)
    assert cursor.state() == before


def test_restore_refuses_other_names_and_other_contents():
    state = Mixture({"easy": prompts("easy", 5)}, {"easy": 1}, 0).state()
    with pytest.raises(UserError, match=r"saved with sources \['easy'\], this run has \['easy', 'hard'\]"):
        mixture().restore(state)
    with pytest.raises(UserError, match="source 'easy' has fingerprint"):
        Mixture({"easy": prompts("other", 5)}, {"easy": 1}, 0).restore(state)


def test_a_mixture_needs_prompts_and_weights():
    with pytest.raises(UserError, match="source 'easy' has no prompt"):
        mixture(easy=0)
    with pytest.raises(UserError, match="source 'hard' has weight 0"):
        mixture(weights=(1, 0))
    with pytest.raises(UserError, match="no source"):
        Mixture({}, {}, 0)
    with pytest.raises(UserError, match=r"weights for \['hard'\]"):
        Mixture({"easy": prompts("easy", 1)}, {"hard": 1}, 0)


def test_skipped_prompts_are_passed_over_and_the_stream_goes_on():
    """As a filter with history asks: source proportions hold, and what is skipped counts in no share."""
    cursor, plain = mixture(), mixture()
    solved = set(ids(plain.take(8))[::2])
    taken = cursor.take(12, skip=lambda prompt, epoch: prompt.id in solved)
    assert not solved & set(ids(taken))
    assert sum(p.source == "easy" for p in taken) == sum(p.source == "easy" for p in mixture().take(12))
    resumed = mixture()
    resumed.restore(cursor.state())
    assert ids(resumed.take(5)) == ids(cursor.take(5))


def test_a_source_that_is_skipped_whole_still_gives_prompts():
    assert len(mixture().take(6, skip=lambda prompt, epoch: True)) == 6


def test_what_is_given_back_comes_first_also_after_a_resume():
    cursor, untouched = mixture(), mixture()
    first = cursor.take(6)
    cursor.give_back(first[4:])
    resumed = mixture()
    resumed.restore(json.loads(json.dumps(cursor.state())))
    assert ids(cursor.take(6)) == ids(resumed.take(6)) == ids(untouched.take(10))[4:]
    assert ids(cursor.take(3)) == ids(resumed.take(3)) == ids(untouched.take(3))

"""Curricula: their order, what they pass over, exact resume, and refusal of rows that they cannot place."""

import json

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.curriculum import Curriculum
from gcpo_mcore.data.cursor import Mixture, shuffled
from gcpo_mcore.data.dataset import load_eval, load_train
from gcpo_mcore.samples import Prompt
from gcpo_mcore.tasks import carry
from tests.data.test_dataset import config

LEVELS = [3, "1", 2.5, 1, 3, 0, 2, 1]  # as csv has them too


def easiest(**changes):
    knobs = {"name": "easiest_first", "column": "level", "easiest": "lowest", "epochs": 1}
    return Curriculum.model_validate({**knobs, **changes})


def by_rate(low, high, revisit=None):
    return Curriculum.model_validate(
        {"name": "by_pass_rate", "low": low, "high": high, "revisit_every_epochs": revisit}
    )


def prompts(levels=LEVELS, name="only"):
    return [Prompt(f"{name}:{i}", name, str(i), [i], str(i), columns={"level": v}) for i, v in enumerate(levels)]


def stream(curriculum, seed=0, levels=LEVELS):
    return Mixture({"only": prompts(levels)}, {"only": 1.0}, seed, curriculum.order)


def levels_of(taken):
    return [float(p.columns["level"]) for p in taken]


def ids(taken):
    return [p.id for p in taken]


def test_none_is_the_order_of_a_mixture_without_a_curriculum():
    none = Curriculum.model_validate({"name": "none"})
    assert ids(stream(none).take(20)) == ids(Mixture({"only": prompts()}, {"only": 1.0}, 0).take(20))
    assert not any(none.skips(rate, epoch) for rate in (None, 0.0, 1.0) for epoch in range(3))


@pytest.mark.parametrize(("way", "reverse"), [("lowest", False), ("highest", True)])
def test_the_first_epoch_goes_from_easy_to_hard(way, reverse):
    first = stream(easiest(easiest=way)).take(8)
    assert levels_of(first) == sorted(map(float, LEVELS), reverse=reverse)
    assert sorted(ids(first)) == sorted(ids(prompts()))


def test_ties_are_shuffled_by_the_seed():
    orders = [tuple(ids(stream(easiest(), seed, [1] * 6).take(6))) for seed in range(5)]
    assert len(set(orders)) > 1
    assert list(orders[0]) == ids(stream(easiest(), 0, [1] * 6).take(6))


def test_later_epochs_are_shuffled_unless_told_otherwise():
    cursor = stream(easiest(epochs=2))
    first, second, third = (cursor.take(8) for _ in range(3))
    assert levels_of(first) == levels_of(second) == sorted(levels_of(third)) != levels_of(third)
    assert ids(third) == [f"only:{i}" for i in shuffled(prompts(), "0/only", 2)]
    cursor = stream(easiest(epochs=None))
    assert all(levels_of(cursor.take(8)) == sorted(map(float, LEVELS)) for _ in range(5))


@pytest.mark.parametrize("before", [0, 3, 8, 11])
def test_resume_goes_on_in_the_same_order(before):
    """With a history that grows as prompts are taken, as the collector's does."""
    curriculum, history = by_rate(0.0, 0.5), {}

    def take(cursor, n):
        taken = cursor.take(n, skip=lambda prompt, epoch: curriculum.skips(history.get(prompt.id), epoch))
        history.update({p.id: float(p.columns["level"]) / 3 for p in taken})
        return ids(taken)

    straight = stream(easiest())
    taken = [take(straight, 1) for _ in range(before)]
    state = json.loads(json.dumps({"cursor": straight.state(), "history": history}))
    expected = [take(straight, 1) for _ in range(12)]
    assert {id for (id,) in [*taken, *expected]} == set(ids(prompts()))
    history = state["history"]
    resumed = stream(easiest())
    resumed.restore(state["cursor"])
    assert [take(resumed, 1) for _ in range(12)] == expected


def test_a_column_that_changed_between_the_two_is_noticed():
    state = stream(easiest()).state()
    with pytest.raises(UserError, match="source 'only' has order"):
        stream(easiest(), levels=[*LEVELS[:-1], 9]).restore(state)
    for source in state["sources"].values():
        del source["order"]  # a checkpoint from before there were curricula
    stream(Curriculum.model_validate({"name": "none"})).restore(state)


def test_the_band_of_pass_rates():
    rates = (None, 0.0, 0.1, 0.5, 0.9, 0.95)
    assert [by_rate(0.1, 0.9).skips(r, 1) for r in rates] == [False, True, False, False, False, True]
    assert [by_rate(0.0, 1.0).skips(r, 1) for r in rates] == [False] * 6


def test_what_was_passed_over_comes_back_in_the_epochs_of_revisiting():
    curriculum = by_rate(0.0, 0.5, revisit=3)
    cursor = Mixture({"only": prompts()}, {"only": 1.0}, 0)
    history = {p.id: 1.0 for p in prompts()[:6]}
    taken = cursor.take(8 + 2 + 2 + 8 + 2, lambda p, epoch: curriculum.skips(history.get(p.id), epoch))
    left = {"only:6", "only:7"}
    assert [len(set(ids(part))) for part in (taken[:8], taken[12:20])] == [8, 8]
    assert [set(ids(part)) for part in (taken[8:10], taken[10:12], taken[20:])] == [left] * 3


def test_solved_is_dropped_for_good():
    curriculum = Curriculum.model_validate({"name": "drop_solved", "solved_at": 0.75})
    assert [curriculum.skips(r, 4) for r in (None, 0.0, 0.5, 0.75, 1.0)] == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"level": 1}, {"levle": 1}], "line 2: there is no column 'level' (nearest: levle) (data.curriculum.column)"),
        ([{"level": None}], "line 1: column 'level' is None, not a number"),
        ([{"level": 1}, {"level": "hard"}], "line 2: column 'level' is 'hard', not a number"),
        ([{"level": float("nan")}], "line 1: column 'level' is nan, not a number"),
        ([{"level": True}], "line 1: column 'level' is True, not a number"),
    ],
)
def test_a_row_that_cannot_be_placed_is_named_before_the_run(tmp_path, rows, complaint):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": "1+2?", "answer": "3", **row}) + "\n" for row in rows))
    settings, tokenizer = config(str(path), curriculum=easiest()), carry.make_tokenizer()
    with pytest.raises(UserError) as error:
        load_train(settings, tokenizer)
    assert f"{path}, {complaint}" in str(error.value) and "\n" not in str(error.value)
    load_eval(settings, tokenizer)  # held-out rows need no place


def test_a_column_inside_a_column(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": "1+2?", "answer": "3", "extra_info": {"level": level}} for level in (2, 0, 1)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    curriculum = easiest(column="extra_info.level")
    loaded = load_train(config(str(path), curriculum=curriculum), carry.make_tokenizer())["easy"]
    assert curriculum.order(loaded.prompts, "0/easy", 0).tolist() == [1, 2, 0]

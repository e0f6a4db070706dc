"""Which rows are drawn: shares of rows with a golden answer, rows that come more often; in exact proportion."""

from collections import Counter
from itertools import pairwise

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.drawing import mixture
from gcpo_mcore.data.prompts import Listed
from gcpo_mcore.run.load import load_config
from gcpo_mcore.samples import Prompt


def source(name: str, rows: int, golden: int, weights: list | None = None) -> Listed:
    """The first `golden` rows have a golden answer."""
    return Listed(
        Prompt(
            f"{name}:{i}", name, "", [1], "", [2] if i < golden else None, "", {"often": weights[i]} if weights else {}
        )
        for i in range(rows)
    )


def drawn(sources, n: int, *overrides: str, only_golden_rows: bool = False) -> list[str]:
    data = load_config(list(overrides)).data
    return [prompt.id for prompt in mixture(sources, data, 3, only_golden_rows).take(n)]


TWO = {"easy": source("easy", 10, 10), "hard": source("hard", 20, 2)}


def test_by_default_rows_come_as_they_come():
    ids = drawn(TWO, 50)
    assert Counter(id_.split(":")[0] for id_ in ids) == {"easy": 30, "hard": 20}
    assert set(Counter(ids).values()) == {1, 3}  # each hard row once, each easy row three times


def test_a_share_of_golden_rows_is_exact():
    ids = drawn(TWO, 100, "data.train.hard.golden_share=0.3")
    hard = [id_ for id_ in ids if id_.startswith("hard")]
    golden = [id_ for id_ in hard if id_ in ("hard:0", "hard:1")]
    assert (len(hard), len(golden)) == (40, 12)
    assert Counter(golden) == {"hard:0": 6, "hard:1": 6}


def test_a_share_of_one_and_of_none():
    assert set(drawn({"easy": TWO["easy"]}, 10, "data.train.easy.golden_share=1")) == {f"easy:{i}" for i in range(10)}
    ids = drawn(TWO, 50, "data.train.hard.golden_share=0")
    assert not {"hard:0", "hard:1"} & set(ids)


def test_only_golden_rows_leaves_sources_without_one_out():
    sources = {"easy": source("easy", 5, 0), "hard": source("hard", 20, 2)}
    assert Counter(drawn(sources, 8, only_golden_rows=True)) == {"hard:0": 4, "hard:1": 4}
    with pytest.raises(UserError, match="no source has golden answers"):
        drawn({"easy": sources["easy"]}, 1, only_golden_rows=True)


def test_a_share_without_such_rows_is_refused():
    with pytest.raises(UserError, match=r"easy\.golden_share=0\.5: it has no row without"):
        drawn(TWO, 1, "data.train.easy.golden_share=0.5")


def test_a_row_comes_as_often_as_its_weight_says():
    one = {"easy": source("easy", 5, 5, [3, 1, 0, 0.5, 2.0])}
    ids = drawn(one, 130, "data.train.easy.row_weight=often")  # 20 epochs of about 6.5
    counts = Counter(ids)
    assert "easy:2" not in counts
    assert counts["easy:0"] == pytest.approx(60, abs=3) and counts["easy:1"] == pytest.approx(20, abs=2)
    assert counts["easy:3"] == pytest.approx(10, abs=8) and counts["easy:4"] == pytest.approx(40, abs=3)
    turns = [i for i, id_ in enumerate(ids) if id_ == "easy:0"]
    assert max(b - a for a, b in pairwise(turns)) <= 5  # spread out, not one after the other


def test_a_weight_of_one_changes_nothing():
    plain, weighed = source("easy", 9, 9), source("easy", 9, 9, [1] * 9)
    assert drawn({"easy": plain}, 40) == drawn({"easy": weighed}, 40, "data.train.easy.row_weight=often")


@pytest.mark.parametrize("bad", [-1, "much", None, float("nan"), True])
def test_what_is_no_weight_is_named(bad):
    with pytest.raises(UserError, match=r"easy:1: often is .*row_weight"):
        drawn({"easy": source("easy", 2, 2, [1, bad])}, 1, "data.train.easy.row_weight=often")


def test_the_place_in_shares_and_weights_is_restored():
    sources = {"hard": source("hard", 6, 2, [2, 1, 1, 0.5, 1, 3])}
    data = load_config(["data.train.hard.golden_share=0.5", "data.train.hard.row_weight=often"]).data
    first, second = mixture(sources, data, 3), mixture(sources, data, 3)
    first.take(11)
    second.restore(first.state())
    assert [p.id for p in first.take(30)] == [p.id for p in second.take(30)]

"""CHAMP's problems as rows; those that need its package (70 MB unpacked, extra `champ`) are skipped without it."""

import sys

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.curation.fill import verified
from gcpo_mcore.data.files import read_rows
from gcpo_mcore.data.shapes import columns_of
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.run.load import load_config
from gcpo_mcore.tasks import champ
from tests.launching import run


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("239", "239"),
        ("-3 is the only possible value", "-3"),
        ("1/3", "1/3"),
        ("98 values", "98"),
        ("900 (i.e., all values)", "900"),
        ("2^n", None),
        ("1 and 19", None),
        ("5/14, or approximately 35.7%", None),
        ("2*C(10, 5)", None),
        ("No", None),
    ],
)
def test_which_answers_are_one_number(answer, number):
    found = champ.NUMBER.fullmatch(answer)
    assert (found and found[1]) == number


def test_without_the_package_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "champ_dataset", None)
    with pytest.raises(UserError, match=r"needs the package 'champ-dataset' \(pip install 'gcpo-mcore\[champ\]'\)"):
        champ.make(with_other_answers=False)


def test_every_number_row_is_right_by_math_verify(tmp_path):
    pytest.importorskip("champ_dataset")
    out = tmp_path / "champ.jsonl"
    assert "126 rows" in run("tools/prepare.py", "champ", "--out", str(out))
    config = load_config(["data=files", "reward=math_verify", "reward.deadline_s=60"])
    rows = read_rows(str(out))
    columns = columns_of(rows[0], config.data.keys)
    texts = [columns.golden_answer(row) for row in rows]
    with Grader(config.reward) as grader:
        assert all(verified(rows, texts, columns, grader))
        assert not any(verified(rows, [text[: text.rindex("\n")] for text in texts], columns, grader))
    assert all(row.values["steps"] == len(text.splitlines()) - 1 for row, text in zip(rows, texts, strict=True))
    assert "270 rows" in run("tools/prepare.py", "champ", "--all", "--out", str(tmp_path / "all.jsonl"))

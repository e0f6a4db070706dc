"""`tools/golden.py rewrite`: how the golden answer is shown, and what becomes of rows without a right new one."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gcpo_mcore.commands import golden as commands_golden
from gcpo_mcore.curation.fill import fill, shortest
from gcpo_mcore.curation.rewrite import Shown
from gcpo_mcore.data.encoder import Encoder
from gcpo_mcore.data.files import read_rows
from gcpo_mcore.data.shapes import columns_of
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.run.load import load_config
from gcpo_mcore.tasks import carry

GOLDEN = "0+9+6=15;1+3+6=10:105"
ROWS = [
    {"prompt": "39+66?", "answer": "105", "golden_answer": GOLDEN, "golden_source": "human"},
    {"prompt": "1+1?", "answer": "2", "golden_answer": "0+1+1=02:2"},
    {"prompt": "2+2?", "answer": "4", "golden_answer": None},
]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return read_rows(str(path))


def shown(ask="{prompt}", begin="{golden}", shares=(1.0,), settings=()):
    data = load_config(list(settings)).data
    return Shown(ask, begin, list(shares), data, Encoder(carry.make_tokenizer())), data


def test_a_part_is_the_first_tokens_and_the_answer_begins_with_it(rows):
    show, data = shown(shares=(0.5, 0.04, 1.0))
    columns, tokenizer = columns_of(rows[0], data.keys), carry.make_tokenizer()
    starts = show.starts(rows[0], columns)
    assert [start.begun for start in starts] == [GOLDEN[:11], "0", GOLDEN]  # half of 21, rounded up
    assert [start.read.ids for start in starts] == [tokenizer.encode("39+66?" + start.begun) for start in starts]
    assert len({start.name for start in starts}) == 3
    assert show.starts(rows[2], columns) == []


def test_a_template_is_filled_once_and_in_the_last_message(rows):
    """Not again in what was filled in; the suffix stands where the prompt does."""
    show, data = shown(ask="{prompt}({golden})", begin="", settings=["data.prompt_suffix='*'"])
    columns = columns_of(rows[0], data.keys)
    (start,) = show.starts(rows[0], columns)
    assert (start.read.text, start.begun) == (f"39+66?*({GOLDEN})", "")
    odd = replace(rows[0], values=rows[0].values | {"prompt": "{golden}?"})
    assert show.starts(odd, columns)[0].read.text == "{golden}?*(" + GOLDEN + ")"
    talk = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}]
    (start,) = show.starts(replace(rows[0], values=rows[0].values | {"prompt": talk}), columns)
    assert start.read.text == f"123*({GOLDEN})"


@pytest.mark.parametrize("keep_old", [True, False])
def test_where_none_is_right_the_old_one_stays_unless_dropped(rows, tmp_path, keep_old):
    config, out = load_config([]), tmp_path / "out.jsonl"

    def propose(asked, columns):
        return [[":2"] for _ in asked]  # right for the second row alone

    with Grader(config.reward) as grader:
        fill(rows, out, propose, shortest, "rewrite:x", config.data, grader, 2, True, {}, lambda _: None, keep_old)
    made = [json.loads(line) for line in Path(out).read_text().splitlines()]
    first = (GOLDEN, "human") if keep_old else (None, None)
    assert [(r["golden_answer"], r["golden_source"]) for r in made] == [first, (":2", "rewrite:x"), (None, None)]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--begin", ""], "--ask and --begin: neither has {golden}, so the golden answer is not shown"),
        (["--ask", "{golden}"], "--ask: has no {prompt}"),
    ],
)
def test_templates_that_show_nothing_are_one_line(rows, tmp_path, monkeypatch, capsys, words, told):
    paths = [str(tmp_path / "in.jsonl"), str(tmp_path / "o.jsonl")]
    monkeypatch.setattr(sys, "argv", ["golden", "rewrite", *paths, "--policy", "x", *words])
    assert commands_golden.main() == 2
    assert capsys.readouterr().err == f"golden: {told}\n"

"""Small files made in the shapes of the field give the right prompt, reference answer and golden answer."""

import json
import re

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.config import Keys
from gcpo_mcore.data.files import prompt_of, read_rows
from gcpo_mcore.data.shapes import columns_of
from tests.launching import ROOT

MESSAGES = [{"role": "user", "content": "What is 6*7?"}]
WORKED = r"Six sevens are $6\cdot 7=42$. So \boxed{42}."
VERL = {
    "data_source": "openai/gsm8k",
    "prompt": MESSAGES,
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "42"},
    "extra_info": {"split": "train", "index": 0},
}
GSM8K = {"question": "What is 6*7?", "answer": "It is 6*7=<<6*7=42>>42.\n#### 42"}
MATH = {"problem": "What is 6*7?", "level": "Level 1", "type": "Algebra", "solution": WORKED}

# name -> row, shape, answers, golden answer; the prompt is always the same question
ROWS = {
    "verl": (VERL, "verl", ("42",), None),
    "verl with the worked answer": (
        {**VERL, "extra_info": {"answer": GSM8K["answer"]}},
        "verl",
        ("42",),
        GSM8K["answer"],
    ),
    "verl with several": (
        {**VERL, "reward_model": {"ground_truth": ["42", "42.0"]}, "extra_info": {"answer": "42"}},
        "verl",
        ("42", "42.0"),
        None,
    ),
    "slime": ({"prompt": "What is 6*7?", "label": "42", "metadata": {}}, "slime", ("42",), None),
    "slime with messages": ({"prompt": MESSAGES, "label": 42}, "slime", ("42",), None),
    "trl": ({"prompt": MESSAGES, "solution": WORKED}, "trl", ("42",), WORKED),
    "trl with a bare answer": ({"prompt": "What is 6*7?", "solution": "$42$"}, "trl", ("$42$",), None),
    "trl with a bare box": ({"prompt": "What is 6*7?", "solution": r"\boxed{42}"}, "trl", ("42",), None),
    "gsm8k": (GSM8K, "gsm8k", ("42",), "It is 6*7=42.\n#### 42"),
    "question and bare answer": ({"question": "What is 6*7?", "answer": "42"}, "gsm8k", ("42",), None),
    "math": (MATH, "math", ("42",), WORKED),
    "math with the answer": ({**MATH, "answer": "42", "unique_id": "1"}, "math", ("42",), WORKED),
    "plain": ({"prompt": "What is 6*7?", "answer": 42, "golden_answer": "6*7=42"}, "plain", ("42",), "6*7=42"),
    "plain without golden": ({"prompt": "What is 6*7?", "answer": ["42", 42.0]}, "plain", ("42", "42.0"), None),
}


def keys(**named):
    return Keys(**{"prompt": None, "answer": None, "golden_answer": None, **named})


def file_of(tmp_path, *rows, ending=".jsonl"):
    path = tmp_path / f"rows{ending}"
    if ending == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return str(path)


def refusal(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ROWS)
def test_a_shape_is_recognised_and_read(tmp_path, name):
    values, shape, answers, golden = ROWS[name]
    (row,) = read_rows(file_of(tmp_path, values))
    columns = columns_of(row, keys())
    prompt = prompt_of(row, columns.prompt)
    assert (prompt if isinstance(prompt, str) else prompt[0]["content"]) == "What is 6*7?"
    assert (columns.shape, columns.answers(row), columns.golden_answer(row)) == (shape, answers, golden)


@pytest.mark.parametrize("name", ["verl with the worked answer", "trl", "math"])
def test_the_same_from_parquet(tmp_path, name):
    values, shape, answers, golden = ROWS[name]
    (row,) = read_rows(file_of(tmp_path, values, ending=".parquet"))
    columns = columns_of(row, keys())
    assert (columns.shape, columns.answers(row), columns.golden_answer(row)) == (shape, answers, golden)


def test_named_keys_go_before_the_shape(tmp_path):
    (row,) = read_rows(file_of(tmp_path, {**MATH, "answer": "41", "hint": {"text": "six sevens", "result": "42"}}))
    columns = columns_of(row, keys(answer="hint.result"))
    assert (columns.shape, columns.answers(row), columns.golden_answer(row)) == ("math", ("42",), WORKED)
    columns = columns_of(row, keys(prompt="level", answer="answer", golden_answer="hint.text"))
    assert prompt_of(row, columns.prompt) == "Level 1"
    assert (columns.shape, columns.answers(row), columns.golden_answer(row)) == ("keys", ("41",), "six sevens")


def test_a_documented_shape_of_ones_own(tmp_path, monkeypatch):
    """The example of docs/extending.md."""
    from gcpo_mcore.data import shapes

    text = (ROOT / "docs/extending.md").read_text()
    (example,) = re.findall(r"<!-- shape -->\n```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.setattr(shapes, "SHAPES", (*shapes.SHAPES, eval(example, vars(shapes))))
    (row,) = read_rows(file_of(tmp_path, {"task": "What is 6*7?", "rationale": WORKED}))
    columns = columns_of(row, keys())
    assert (columns.shape, prompt_of(row, columns.prompt)) == ("orca", "What is 6*7?")
    assert (columns.answers(row), columns.golden_answer(row)) == (("42",), WORKED)


def test_unknown_columns_are_named(tmp_path):
    (row,) = read_rows(file_of(tmp_path, {"query": "6*7", "target": "42"}))
    message = refusal(columns_of, row, keys())
    assert message.startswith(f"{row.where}: the columns query, target are of no known shape; known: verl (prompt, ")
    columns = columns_of(row, keys(prompt="query", answer="target"))
    assert (columns.answers(row), columns.golden_answer(row)) == (("42",), None)


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        (VERL, {**VERL, "reward_model": {"style": "rule"}}, "no column 'reward_model.ground_truth'"),
        (VERL, {**VERL, "reward_model": None}, "no column 'reward_model.ground_truth'"),
        (GSM8K, {"question": "6*7?", "answer": "It is 42.\n####"}, "column 'answer' has no answer in it (shape gsm8k)"),
        (GSM8K, {"question": "6*7?"}, "no column 'answer'"),
        (MATH, {"problem": "6*7?", "solution": "42"}, "column 'solution' has no answer in it (shape math)"),
        ({"prompt": "6*7?", "label": "42"}, {"prompt": "6*7?", "label": None}, "column 'label' is null"),
        (ROWS["trl"][0], {"prompt": "6*7?", "solution": [[]]}, "column 'solution' is of type list"),
    ],
)
def test_a_broken_row_names_file_and_row(tmp_path, first, second, complaint):
    path = file_of(tmp_path, first, second)
    good, bad = read_rows(path)
    columns = columns_of(good, keys())
    message = refusal(columns.answers, bad)
    assert message.startswith(f"{path}, line 2: ") and complaint in message

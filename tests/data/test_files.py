"""Reading rows: what is accepted, and that every complaint is one line with the file and the row."""

import json
from decimal import Decimal

import pyarrow
import pyarrow.parquet
import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.files import Row, answers_of, golden_of, prompt_of, read_rows

ROWS = [
    {"prompt": "1+2?", "answer": "3", "golden_answer": "1+2=3"},
    {"prompt": "é", "answer": 4, "golden_answer": None},
]


def jsonl(tmp_path, *lines):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


def refusal(call, *arguments):
    """The message of the UserError, checked to be one line."""
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


USER = {"role": "user", "content": "1+2?"}
ASSISTANT = {"role": "assistant", "content": "3"}


def row(**values):
    return Row(0, "rows.jsonl, line 1", values)


def test_jsonl_and_parquet_give_the_same_values(tmp_path):
    text = jsonl(tmp_path, json.dumps(ROWS[0]), "", json.dumps(ROWS[1]))
    columns = str(tmp_path / "rows.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**r, "answer": str(r["answer"])} for r in ROWS]), columns)
    from_text, from_columns = read_rows(text), read_rows(columns)
    assert [r.values for r in from_text] == ROWS
    assert [r.number for r in from_text] == [r.number for r in from_columns] == [0, 1]
    assert (
        [answers_of(r, "answer") for r in from_text]
        == [("3",), ("4",)]
        == [answers_of(r, "answer") for r in from_columns]
    )
    assert [golden_of(r, "golden_answer") for r in from_columns] == ["1+2=3", None]
    assert from_text[1].where.endswith("rows.jsonl, line 3")  # the blank line counts as a line
    assert from_columns[1].where.endswith("rows.parquet, row 1")
    assert len(read_rows(text, max_rows=1)) == len(read_rows(columns, max_rows=1)) == 1


def test_messages_in_parquet(tmp_path):
    messages = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1+2?"}]
    path = str(tmp_path / "rows.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"prompt": messages, "answer": 3}]), path)
    (only,) = read_rows(path)
    assert prompt_of(only, "prompt") == messages
    assert answers_of(only, "answer") == ("3",)


def test_files_that_cannot_be_read(tmp_path):
    missing = str(tmp_path / "none.jsonl")
    assert refusal(read_rows, missing) == f"{missing}: there is no such file or folder"
    other = tmp_path / "rows.txt"
    other.write_text("prompt,answer\n")
    assert refusal(read_rows, str(other)) == f"{other}: unknown ending '.txt'; known: .jsonl, .json, .csv, .parquet"
    empty = jsonl(tmp_path, "")
    assert refusal(read_rows, empty) == f"{empty}: there are no rows"
    broken = tmp_path / "rows.parquet"
    broken.write_bytes(b"not parquet")
    assert refusal(read_rows, str(broken)).startswith(f"{broken}: not a readable parquet file: ")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"prompt": }', "line 2: not valid JSON: Expecting value at character 12"),
        ("[1, 2]", "line 2: not a JSON object but list"),
    ],
)
def test_broken_jsonl_names_the_line(tmp_path, line, complaint):
    path = jsonl(tmp_path, json.dumps(ROWS[0]), line)
    assert refusal(read_rows, path) == f"{path}, {complaint}"


def test_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "\xff"}\n')
    assert refusal(read_rows, str(path)) == f"{path}, line 1: not UTF-8 at byte 13"


@pytest.mark.parametrize(
    ("call", "values", "complaint"),
    [
        (prompt_of, {"promt": "x", "y": 1}, "there is no column 'prompt' (nearest: promt); columns: promt, y"),
        (prompt_of, {"prompt": None}, "column 'prompt' is null"),
        (prompt_of, {"prompt": " "}, "column 'prompt' is empty"),
        (prompt_of, {"prompt": 7}, "column 'prompt' is of type int; it must be a string or a list of messages"),
        (prompt_of, {"prompt": []}, "column 'prompt' is an empty list"),
        (prompt_of, {"prompt": [{"role": "user"}]}, "message 0 must have strings 'role' and 'content'"),
        (prompt_of, {"prompt": [{"role": "assistant", "content": "x"}]}, "the last message is the assistant's"),
        (prompt_of, {"prompt": ["x"]}, "message 0 must have strings 'role' and 'content'"),
        (prompt_of, {"prompt": [{"role": "human", "content": "x"}]}, "message 0 has the role 'human'; known: system, "),
        (prompt_of, {"prompt": [{"role": "users", "content": "x"}]}, "has the role 'users' (nearest: user); known: "),
        (prompt_of, {"prompt": [{"role": "user", "content": "\n "}]}, "column 'prompt': message 0 (user) is blank"),
        (prompt_of, {"prompt": [{"role": "system", "content": ""}, USER]}, "message 0 (system) is blank"),
        (prompt_of, {"prompt": [USER, ASSISTANT, ASSISTANT, USER]}, "messages 1 and 2 are both the assistant's"),
        (prompt_of, {"prompt": json.dumps([USER, ASSISTANT])}, "the last message is the assistant's"),
        (prompt_of, {"prompt": json.dumps([USER | {"content": ""}])}, "message 0 (user) is blank"),
        (prompt_of, {"prompt": '[{"role": "user", "content": "\\ud83d"}]'}, "holds half of a surrogate pair"),
        (prompt_of, {"prompt": '[{"role": "user", "role": "x", "content": "1"}]'}, "has the key 'role' twice"),
        (answers_of, {"answer": None}, "column 'answer' is null"),
        (answers_of, {"answer": ""}, "column 'answer' is empty"),
        (answers_of, {"answer": True}, "column 'answer' is of type bool; it must be a string or a number"),
        (answers_of, {"answer": float("nan")}, "column 'answer' is nan, not a finite number"),
        (answers_of, {"answer": [["3"]]}, "column 'answer' is of type list"),
        (answers_of, {"answer": []}, "column 'answer' is an empty list"),
        (answers_of, {"answer": Decimal("NaN")}, "column 'answer' is NaN, not a finite number"),
        (answers_of, {"answer": Decimal("-sNaN")}, "column 'answer' is -sNaN, not a finite number"),
        (answers_of, {"an\nswer": "3"}, "there is no column 'answer' (nearest: an\\nswer); columns: an\\nswer"),
        (golden_of, {"golden": 3}, "column 'golden' is of type int; it must be a string or null"),
        (golden_of, {"golden": ""}, "column 'golden' is empty; a row without a golden answer has null"),
    ],
)
def test_a_bad_value_names_row_and_column(call, values, complaint):
    column = {prompt_of: "prompt", answers_of: "answer", golden_of: "golden"}[call]
    message = refusal(call, row(**values), column)
    assert message.startswith("rows.jsonl, line 1: ")
    assert complaint in message


# Messages as they are found in text; none of these may be trained on as it stands.
MESSAGES_IN_TEXT = [
    str([USER]),  # what pandas writes into csv
    "[{'content': '1+2?', 'role': 'user'}\n {'content': '3', 'role': 'assistant'}]",  # what numpy prints
    "array([{'content': '1+2?', 'role': 'user'}], dtype=object)",
    json.dumps(json.dumps([USER])),
    json.dumps(USER),
    json.dumps({"messages": [USER]}),
    json.dumps([{"from": "human", "value": "1+2?"}]),
    json.dumps([USER, {"from": "gpt", "value": "3"}]),
    json.dumps([USER])[:-3],  # cut off
    json.dumps([USER]) + "\n\n",
]


@pytest.mark.parametrize("text", MESSAGES_IN_TEXT)
def test_messages_in_text_are_read_or_refused(text):
    if text.endswith("\n\n"):
        assert prompt_of(row(prompt=text), "prompt") == [USER]
    else:
        assert "is text that holds messages, but not as a JSON list" in refusal(prompt_of, row(prompt=text), "prompt")


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2] + [3]?",
        '{"a": 1}',
        '["role", "content"]',
        'What are "role": and "content": in {"role": "user", "content": "x"}?',
        "{x : x > 2}",
        '[{"a": 1}]',
    ],
)
def test_text_that_only_looks_like_json_is_a_prompt(text):
    assert prompt_of(row(prompt=text), "prompt") == text


def test_numbers_become_text_and_golden_may_be_missing():
    assert answers_of(row(answer=10**400), "answer") == ("1" + "0" * 400,)
    assert answers_of(row(answer=Decimal("1E+400")), "answer") == ("1E+400",)
    assert answers_of(row(answer=105), "answer") == ("105",)
    assert answers_of(row(answer=[0.5, "1/2"]), "answer") == ("0.5", "1/2")
    assert golden_of(row(answer="3"), "golden_answer") is None

"""json, csv, folders and Hugging Face data sets: the same rows, and complaints that say where."""

import json
import subprocess
import sys

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.files import read_rows
from tests.launching import ENVIRONMENT

ROWS = [{"prompt": "1+2?", "answer": "3"}, {"prompt": 'a "b",\nc', "answer": "é"}]
CSV = 'prompt,answer\n1+2?,3\n"a ""b"",\nc",é\n'


def refusal(path):
    with pytest.raises(UserError) as error:
        read_rows(str(path))
    assert "\n" not in str(error.value)
    return str(error.value)


def write(path, content):
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(ROWS)),
        ("a.json", json.dumps({"version": 1, "data": ROWS})),
        ("a.csv", CSV),
        ("a.csv", "\ufeff" + CSV),
        ("a.csv", CSV.replace("1+2?,3\n", "1+2?,3\n\n")),
    ],
)
def test_json_and_csv(tmp_path, name, content):
    path = write(tmp_path / name, content)
    assert [r.values for r in read_rows(str(path))] == ROWS


def test_where_a_row_is(tmp_path):
    rows = read_rows(str(write(tmp_path / "a.json", json.dumps(ROWS))))
    assert [r.where for r in rows] == [f"{tmp_path}/a.json, row 0", f"{tmp_path}/a.json, row 1"]
    rows = read_rows(str(write(tmp_path / "a.csv", CSV + "5,6\n")))
    assert [r.where.removeprefix(f"{tmp_path}/a.csv, ") for r in rows] == ["line 2", "line 3", "line 5"]


def test_an_empty_csv_value_is_null(tmp_path):
    (row,) = read_rows(str(write(tmp_path / "a.csv", "prompt,answer,golden_answer\n1,2,\n")))
    assert row.values == {"prompt": "1", "answer": "2", "golden_answer": None}


def test_a_folder_is_its_files_in_order(tmp_path):
    write(tmp_path / "b.csv", CSV)
    write(tmp_path / "a.jsonl", '{"prompt": "0", "answer": "0"}\n')
    write(tmp_path / "README.md", "not data")
    (tmp_path / "test").mkdir()
    write(tmp_path / "test" / "a.jsonl", '{"prompt": "held out", "answer": "0"}\n')
    rows = read_rows(str(tmp_path))
    assert [r.values["prompt"] for r in rows] == ["0", "1+2?", 'a "b",\nc']
    assert [r.number for r in rows] == [0, 1, 2]
    assert rows[1].where == f"{tmp_path}/b.csv, line 2"
    write(tmp_path / "c.jsonl", "{")
    assert refusal(tmp_path).startswith(f"{tmp_path}/c.jsonl, line 1: not valid JSON")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.json", "[{]", "a.json: not valid JSON: Expecting property name enclosed in double quotes at line 1, char"),
        ("a.json", "[1]", "a.json, row 0: not a JSON object but int"),
        ("a.json", "3", "a.json: not a list of rows but int"),
        ("a.json", '{"a": [], "b": []}', "a.json: an object has to hold one list of rows, this one holds 2"),
        ("a.csv", "prompt,answer\n1,2\n1,2,3\n", "a.csv, line 3: 3 fields, the header has 2"),
        ("a.csv", "prompt,answer\n1\n", "a.csv, line 2: 1 fields, the header has 2"),
        ("a.csv", "prompt,prompt\n1,2\n", "a.csv, line 1: the column 'prompt' is there twice"),
        ("a.csv", 'prompt,answer\n"1,2\n', "a.csv, line 2: not valid csv: unexpected end of data"),
        ("a.csv", "prompt,answer\n", "a.csv: there are no rows"),
        ("a.csv", "", "a.csv: there are no rows"),
    ],
)
def test_complaints(tmp_path, name, content, complaint):
    path = write(tmp_path / name, content)
    assert refusal(path).startswith(f"{tmp_path}/{complaint}")


def test_an_empty_folder(tmp_path):
    message = f"{tmp_path}: the folder has no file that ends in .jsonl, .json, .csv, .parquet"
    assert refusal(tmp_path) == message


def test_a_hugging_face_data_set(tmp_path, monkeypatch):
    """The library itself, on a folder of files: no hub is reached."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "task"
    folder.mkdir()
    write(folder / "train.jsonl", "".join(json.dumps(r) + "\n" for r in ROWS))
    write(folder / "test.jsonl", json.dumps(ROWS[0]) + "\n")
    rows = read_rows(f"hf:{folder}?split=train")
    assert [r.values for r in rows] == ROWS
    assert rows[1].where == f"hf:{folder}?split=train, row 1"
    assert len(read_rows(f"hf:{folder}?split=test")) == 1
    assert 'Unknown split "dev"' in refusal(f"hf:{folder}?split=dev")


def test_hugging_face_paths_that_are_wrong():
    assert "has to be hf:NAME?split=train" in refusal("hf:openai/gsm8k")
    assert "unknown option 'spilt' (nearest: split)" in refusal("hf:openai/gsm8k?spilt=train")


def test_without_the_datasets_package_the_message_says_what_to_install():
    code = """
import sys
sys.modules["datasets"] = None  # what an import of a missing package comes to
from gcpo_mcore.data.files import read_rows
read_rows("hf:openai/gsm8k?split=train")
"""
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    assert "needs the package 'datasets' (pip install 'gcpo-mcore[hub]')" in done.stderr

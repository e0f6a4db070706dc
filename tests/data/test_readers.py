"""json, csv, folders and Hugging Face data sets: the same rows, and complaints that say where."""

import datetime
import gzip
import json
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.files import read_rows, sift_rows
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
        ("a.csv", "\nprompt,answer\n1,2\n", "a.csv, line 1: it is blank; the first line names the columns"),
        ("a.csv", 'prompt,answer\n"a \\"b\\"",2\n', "a.csv, line 2: not valid csv: ',' expected after '\"'"),
        ("a.json", "", "a.json: not valid JSON: Expecting value at line 1, character 1"),
        ("a.json", '[{"a": 1, "a": 2}]', "a.json, row 0: has the key 'a' twice"),
        ("a.json", '[{"a": 1}, {"a": "\\ud83d"}]', "a.json, row 1: column 'a' holds half of a surrogate pair"),
        ("a.json", '{"data": [], "data": []}', "a.json: has the key 'data' twice"),
        ("a.json", "[" * 100_000, "a.json: has lists and objects nested deeper than 64 levels"),
        ("a.json", '{"a": 1}\n{"a": 2}\n', "a.json: not valid JSON: Extra data at line 2, character 1; a file of one"),
    ],
)
def test_complaints(tmp_path, name, content, complaint):
    path = write(tmp_path / name, content)
    assert refusal(path).startswith(f"{tmp_path}/{complaint}")


LINE = '{"prompt": "1+2?", "answer": "3"}\n'
NO_TEXT = "holds half of a surrogate pair, which is no Unicode text"
DEEP = "has lists and objects nested deeper than 64 levels"
# The end of the second line of three, and what is wrong with it.
BAD_LINES = {
    "half a pair": ('"answer": "4\\udc00"}', f"column 'answer' {NO_TEXT}"),
    "half a pair inside": ('"answer": "4", "note": [{"a": "\\ud83d!"}]}', f"column 'note' {NO_TEXT}"),
    "half a pair in a name": ('"answer": "4", "a\\ud83d": 1}', rf"the name of column a\ud83d {NO_TEXT}"),
    "a long integer": (
        '"answer": ' + "7" * 5000 + "}",
        "column 'answer' has an integer of 5,000 digits; more than 4,300 have to be text",
    ),
    "one inside": ('"answer": "4", "id": [-' + "7" * 5000 + "]}", "column 'id' has an integer of 5,000 digits"),
    "too deep to read": ('"answer": "4", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", DEEP),
    "too deep": ('"answer": "4", "x": ' + "[" * 65 + "]" * 65 + "}", f"column 'x' {DEEP}"),
    "deep objects": ('"answer": "4", "x": ' + '{"a": ' * 66 + "1" + "}" * 67, f"column 'x' {DEEP}"),
    "a doubled column": ('"answer": "4", "answer": "5"}', "has the key 'answer' twice"),
    "a doubled key": ('"answer": "4", "meta": {"a": 1, "a": 1}}', "column 'meta' has the key 'a' twice"),
    "no JSON": ('"answer": 4,}', "not valid JSON: Expecting property name enclosed in double quotes"),
    "two in a line": ('"answer": "4"} {}', "not valid JSON: Extra data"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_named_and_does_not_hide_the_others(tmp_path, case):
    end, problem = BAD_LINES[case]
    path = write(tmp_path / "a.jsonl", LINE + '{"prompt": "2+2?", ' + end + "\n" + LINE)
    assert refusal(path).startswith(f"{path}, line 2: {problem}")
    assert len(read_rows(str(path), max_rows=1)) == 1
    good, (bad,) = sift_rows(str(path))
    assert len(good) == 2 and good[1].where == f"{path}, line 3"
    assert bad.where == f"{path}, line 2" and bad.problem.startswith(problem)


def test_what_json_may_hold(tmp_path):
    nested = '"x": ' + "[" * 64 + "]" * 64
    line = LINE[:-2] + f', {nested}, "score": NaN, "id": {"7" * 4300}, "face": "\\ud83d\\ude00"}}'
    (row,) = read_rows(str(write(tmp_path / "a.jsonl", line)))
    assert row.values["face"] == "\U0001f600" and row.values["score"] != row.values["score"]
    assert row.values["id"] == int("7" * 4300)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize(
    ("content", "form"),
    [
        (LINE.encode("utf-16"), "UTF-16"),
        (b"\xfe\xff" + LINE.encode("utf-16-be"), "UTF-16"),
        (LINE.encode("utf-32"), "UTF-32"),
        (gzip.compress(LINE.encode(), mtime=0), "gzip"),
    ],
)
def test_what_is_not_utf8_is_said_once(tmp_path, name, content, form):
    path = tmp_path / name
    path.write_bytes(content)
    assert refusal(path) == f"{path}: it is {form}; it has to be text in UTF-8"
    assert [bad.where for bad in sift_rows(str(path))[1]] == [str(path)]


# The second of two values that Python has none for; the first is null.
BEYOND_PYTHON = {
    "a far time": pyarrow.array([None, 10**18], pyarrow.timestamp("us")),
    "a time before all": pyarrow.array([None, -(10**15)], pyarrow.timestamp("ms")),
    "a far day": pyarrow.array([None, 10**7], pyarrow.date32()),
    "an unknown zone": pyarrow.array([None, 1], pyarrow.timestamp("us", tz="Mars/Phobos")),
    "year 1 west of Greenwich": pyarrow.array([None, -62135596800], pyarrow.timestamp("s", tz="America/New_York")),
    "a long time": pyarrow.array([None, 2**62], pyarrow.duration("s")),
    "no UTF-8": pyarrow.Array.from_buffers(
        pyarrow.string(),
        2,
        [pyarrow.py_buffer(b"\2"), *(pyarrow.py_buffer(b) for b in (b"\0\0\0\0\0\0\0\0\2\0\0\0", b"\xff\xfe"))],
    ),
    "a doubled key": pyarrow.StructArray.from_arrays(
        [pyarrow.array([1, 2]), pyarrow.array([3, 4])], names=["a", "a"], mask=pyarrow.array([True, False])
    ),
}


def parquet(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["1+1?", "1+2?"], "answer": ["2", "3"], **columns}), path)
    return path


@pytest.mark.parametrize("case", BEYOND_PYTHON)
def test_a_value_that_python_has_none_for(tmp_path, case):
    path = parquet(tmp_path / "a.parquet", extra=BEYOND_PYTHON[case])
    message = refusal(path)
    assert message.startswith(f"{path}, row 1: column 'extra' of type ") and "has no value in Python (" in message
    (good,), (bad,) = sift_rows(str(path))
    assert good.values == {"prompt": "1+1?", "answer": "2", "extra": None} and bad.where == f"{path}, row 1"


def test_types_of_parquet(tmp_path):
    text = pyarrow.array(["2", "3"])
    first, last = datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31)
    columns = {
        "answer": text.dictionary_encode(),
        "large": text.cast(pyarrow.large_string()),
        "map": pyarrow.array([[("a", 1)], None], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        "struct": pyarrow.array([{"a": {"b": [1]}}, None]),
        "bytes": pyarrow.array([b"\xff", None], pyarrow.large_binary()),
        "time": pyarrow.array([first, last], pyarrow.timestamp("us")),
    }
    (row, second) = read_rows(str(parquet(tmp_path / "a.parquet", **columns)))
    assert row.values == {
        "prompt": "1+1?", "answer": "2", "large": "2", "map": [("a", 1)], "struct": {"a": {"b": [1]}},
        "bytes": b"\xff", "time": first,
    }  # fmt: skip
    assert second.values["time"] == last


def test_a_doubled_column_of_parquet(tmp_path):
    table = pyarrow.Table.from_arrays([pyarrow.array([x]) for x in "123"], names=["prompt", "answer", "answer"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet") == f"{tmp_path}/a.parquet: the column 'answer' is there twice"


def test_damaged_parquet(tmp_path):
    """Cut short, and with a page overwritten: at the end, the rows before it are there."""
    path = tmp_path / "a.parquet"
    rows = [{"prompt": f"{i}+1?", "answer": str(i + 1)} for i in range(4000)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=1000, write_page_checksum=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert refusal(path).startswith(f"{path}: not a readable parquet file: ArrowInvalid: ")
    path.write_bytes(b"")
    assert refusal(path).startswith(f"{path}: not a readable parquet file: ")
    path.write_bytes(whole)
    offset = pyarrow.parquet.ParquetFile(path).metadata.row_group(2).column(1).dictionary_page_offset
    path.write_bytes(whole[: offset + 40] + b"\0" * 400 + whole[offset + 440 :])
    assert ", after row 1023: not a readable parquet file: " in refusal(path)
    good, (bad,) = sift_rows(str(path))
    assert len(good) == 1024 and bad.where == str(path)


@pytest.mark.parametrize("separator", ";\t|")
def test_csv_with_another_separator(tmp_path, separator):
    path = write(tmp_path / "a.csv", CSV.replace(",", separator))
    assert refusal(path) == f"{path}, line 1: the columns are separated by {separator!r}; it has to be a comma"


def test_bad_csv_rows_do_not_hide_the_others(tmp_path):
    path = str(write(tmp_path / "a.csv", "prompt,answer\n1\n1+2?,3\n1,2,3\n"))
    good, bad = sift_rows(path)
    assert [r.where for r in good] == [f"{path}, line 3"]
    assert [(b.where, b.problem) for b in bad] == [
        (f"{path}, line 2", "1 fields, the header has 2"),
        (f"{path}, line 4", "3 fields, the header has 2"),
    ]


def test_what_the_system_does_not_let_us_read(tmp_path):
    (tmp_path / "a.jsonl").mkdir()  # is no file of the folder
    assert "the folder has no file that ends in" in refusal(tmp_path)
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "nowhere")
    assert refusal(tmp_path) == f"{tmp_path}/b.jsonl: No such file or directory"
    (tmp_path / "c.jsonl").symlink_to("/proc/self/mem")
    assert refusal(tmp_path / "c.jsonl") == f"{tmp_path}/c.jsonl: Input/output error"
    assert refusal("x" * 300 + ".jsonl").endswith(".jsonl: File name too long")
    assert "there is no such file or folder" in refusal("a\0.jsonl")


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
    odd = tmp_path / "odd"
    odd.mkdir()
    parquet(odd / "train.parquet", extra=BEYOND_PYTHON["a far time"])
    assert refusal(f"hf:{odd}?split=train").startswith(f"hf:{odd}?split=train, row 1: column 'extra' cannot be read (")


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


def test_csv_that_is_not_utf8_is_located_by_its_line(tmp_path):
    """Far behind a good row: what reads ahead must not be what is named."""
    for bad, byte in ((b"1+\xed\xa0\x80?", 3), (b"\xff", 1)):
        path = tmp_path / "rows.csv"
        path.write_bytes(b"prompt,answer\n" + b"1+1?,2\n" * 5000 + bad + b",2\n" + b"1+1?,2\n" * 5000)
        assert refusal(str(path)) == f"{path}, line 5002: not UTF-8 at byte {byte}"

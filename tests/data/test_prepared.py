"""Prepared prompts: the same as those read by each rank, made once by all processes, and never another data set's."""

import datetime
import decimal
import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gcpo_mcore.base.errors import EXIT_CODE, UserError
from gcpo_mcore.data import preparing
from gcpo_mcore.data.curriculum import Curriculum, kept_order
from gcpo_mcore.data.cursor import Mixture
from gcpo_mcore.data.dataset import load_eval, load_train
from gcpo_mcore.data.prepared import META, Prepared
from gcpo_mcore.tasks import carry as carry_task
from tests.data.test_dataset import config
from tests.launching import launch, run

ROWS = 300
EASIEST = Curriculum.model_validate({"name": "easiest_first", "column": "level", "easiest": "highest", "epochs": None})


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """So that a few rows are several parts of several batches."""
    monkeypatch.setattr(preparing, "ROWS_PER_PART", 64)
    monkeypatch.setattr(preparing, "ROWS_PER_BATCH", 24)


@pytest.fixture(scope="module")
def tokenizer():
    return carry_task.make_tokenizer()


def rows():
    """Of every kind: overlong ones, golden answers, several answers, values that only parquet has."""
    made = []
    for i in range(ROWS):
        row = {
            "prompt": f"{i}+1?" if i % 9 else "1+2+3+4+5+6?",
            "answer": [str(i + 1), f"0{i + 1}"] if i % 2 else [str(i + 1)],
            "golden_answer": f"0+{i}={i + 1}:{i + 1}" if i % 3 else None,
            "level": i % 5,
            "note": {"text": "a" * (i % 4), "parts": [i, None]},
        }
        made.append(row)
    return made


def written(folder: Path, form: str) -> str:
    """The rows as a file of that form, a folder of two, or a data set of the hub's library."""
    if form == "jsonl":
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
        return str(folder / "rows.jsonl")
    if form == "folder":
        (folder / "two").mkdir()
        for name, some in (("a.jsonl", rows()[:100]), ("b.jsonl", rows()[100:])):
            (folder / "two" / name).write_text("".join(json.dumps(row) + "\n" for row in some))
        return str(folder / "two")
    if form == "csv":
        lines = [f"{row['prompt']},{row['answer'][0]},{row['level']}\n" for row in rows()]
        (folder / "rows.csv").write_text("prompt,answer,level\n" + "".join(lines))
        return str(folder / "rows.csv")
    day, price = datetime.datetime(2026, 1, 2, 3), decimal.Decimal("1.50")
    table = pa.Table.from_pylist([{**row, "day": day, "price": price, "raw": b"\x00\xff"} for row in rows()])
    if form == "parquet":
        pq.write_table(table, folder / "rows.parquet", row_group_size=70)
        return str(folder / "rows.parquet")
    (folder / "hub").mkdir()
    datasets.Dataset(table).to_parquet(folder / "hub" / "train.parquet")
    return f"hf:{folder / 'hub'}?split=train"


def both(path, tmp_path, tokenizer, curriculum=None, **source):
    """The source `easy` as each rank reads it, and prepared."""
    loaded = []
    for above_mib in (1e6, 0.0):
        settings = config(
            path,
            train={"easy": {"path": path, "weight": 1, **source}},
            curriculum=curriculum or {"name": "none"},
            overlong_prompts="drop",
            cache={"folder": str(tmp_path / "cache"), "above_mib": above_mib},
        )
        loaded.append(load_train(settings, tokenizer)["easy"])
    listed, prepared = loaded
    assert isinstance(prepared.prompts, Prepared) and not isinstance(listed.prompts, Prepared)
    return listed, prepared


def stream(loaded, curriculum=None):
    order = kept_order(curriculum or Curriculum.model_validate({"name": "none"}))
    return Mixture({"easy": loaded.prompts}, {"easy": 1.0}, 3, order)


@pytest.mark.parametrize("form", ["jsonl", "folder", "csv", "parquet", "hub"])
def test_prepared_prompts_are_those_that_each_rank_would_read(form, tmp_path, tokenizer):
    listed, prepared = both(written(tmp_path, form), tmp_path, tokenizer)
    assert list(prepared.prompts) == list(listed.prompts)
    assert [type(p.columns["level"]) for p in prepared.prompts] == [type(p.columns["level"]) for p in listed.prompts]
    assert prepared.prompts.fingerprint == listed.prompts.fingerprint
    assert prepared.prompts.golden_tokens().tolist() == listed.prompts.golden_tokens().tolist()
    for one in (listed, prepared):
        facts = (one.shape, one.rows, one.dropped, len(one.prompts), one.with_golden, one.golden_over(12))
        assert facts == (
            listed.shape,
            ROWS,
            -(-ROWS // 9),
            ROWS - -(-ROWS // 9),
            listed.with_golden,
            listed.golden_over(12),
        )
    assert listed.with_golden > listed.golden_over(12) > 0 or form == "csv"


@pytest.mark.parametrize(
    "source", [{"max_golden_rows": 70}, {"max_rows": 130}, {"max_rows": 130, "max_golden_rows": 0}]
)
def test_fewer_rows_and_fewer_golden_answers(source, tmp_path, tokenizer):
    listed, prepared = both(written(tmp_path, "jsonl"), tmp_path, tokenizer, **source)
    assert list(prepared.prompts) == list(listed.prompts)
    assert (prepared.rows, prepared.with_golden) == (listed.rows, listed.with_golden)
    assert prepared.prompts[-1] == listed.prompts[-1]
    with pytest.raises(IndexError):
        prepared.prompts[len(prepared.prompts)]


@pytest.mark.parametrize("curriculum", [None, EASIEST])
def test_the_order_is_the_same_and_a_cursor_goes_from_one_to_the_other(curriculum, tmp_path, tokenizer):
    listed, prepared = both(written(tmp_path, "jsonl"), tmp_path, tokenizer, curriculum)
    n = len(listed.prompts)
    expected = stream(listed, curriculum)
    first = expected.take(n + 40)
    there = stream(prepared, curriculum)
    assert there.take(n + 40) == first  # into the second epoch
    there.give_back(first[-3:])
    expected.give_back(first[-3:])
    state = json.loads(json.dumps(there.state()))
    assert state == expected.state()
    following = expected.take(50)
    for loaded in (listed, prepared):
        resumed = stream(loaded, curriculum)
        resumed.restore(state)
        assert resumed.take(50) == following


def test_an_order_is_worked_out_once_for_all_processes_and_old_ones_go(tmp_path, tokenizer):
    _, prepared = both(written(tmp_path, "jsonl"), tmp_path, tokenizer)
    first = [stream(prepared).take(300) for _ in range(2)]
    assert first[0] == first[1]
    files = sorted(prepared.prompts.folder.glob("order-*.npy"))
    assert len(files) == 2  # of two epochs
    made = []
    order = prepared.prompts.order("mine", lambda: made.append(1) or list(range(5)))
    assert order.tolist() == prepared.prompts.order("mine", lambda: made.append(2) or []).tolist() == [0, 1, 2, 3, 4]
    assert made == [1]
    for number in range(30):
        prepared.prompts.order(str(number), lambda: [1])
    assert len(list(prepared.prompts.folder.glob("order-*.npy"))) == 16
    assert order.tolist() == [0, 1, 2, 3, 4]  # what is mapped stays


def test_checkpoints_of_version_0_1_0_go_on(tmp_path, tokenizer):
    """Their words for the contents are digests of all prompts, in the order of the rows and of the first epoch."""

    def digest(prompts):
        made = hashlib.blake2b(digest_size=8)
        for p in prompts:
            made.update(repr((p.id, p.token_ids, p.answer, *p.other_answers)).encode())
        return made.hexdigest()

    listed, prepared = both(written(tmp_path, "jsonl"), tmp_path, tokenizer)
    cursor = stream(listed)
    in_order = cursor.take(len(listed.prompts))
    state = cursor.state()
    state["sources"]["easy"] |= {"fingerprint": digest(listed.prompts), "order": digest(in_order)}
    following = cursor.take(9)
    for loaded in (listed, prepared):
        resumed = stream(loaded)
        resumed.restore(state)
        assert resumed.take(9) == following
        for field in ("fingerprint", "order"):
            other = json.loads(json.dumps(state))
            other["sources"]["easy"][field] = digest(in_order[:-1])
            with pytest.raises(UserError, match=f"source 'easy' has {field}"):
                stream(loaded).restore(other)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ({"answer": "3", "level": 1}, "there is no column 'prompt'"),
        ({"prompt": "1+1?", "answer": None, "level": 1}, "column 'answer' is null"),
        ({"prompt": "1+1?", "answer": "2", "level": "x"}, "column 'level' is 'x', not a number"),
        ({"prompt": "1+1?", "answer": "2", "level": 1, "golden_answer": 3}, "column 'golden_answer' is of type int"),
    ],
)
def test_a_bad_row_is_refused_before_the_run_and_the_mended_file_is_read(line, complaint, tmp_path, tokenizer):
    path = written(tmp_path, "jsonl")
    lines = Path(path).read_text().splitlines()
    Path(path).write_text("\n".join([*lines[:199], json.dumps(line), *lines[200:]]) + "\n")
    settings = config(
        path, curriculum=EASIEST, overlong_prompts="drop", cache={"folder": str(tmp_path / "cache"), "above_mib": 0}
    )
    for _ in range(2):
        with pytest.raises(UserError) as error:
            load_train(settings, tokenizer)
        assert str(error.value).startswith(f"{path}, line 200: {complaint}") and "\n" not in str(error.value)
    Path(path).write_text("\n".join(lines) + "\n")
    assert load_train(settings, tokenizer)["easy"].rows == ROWS


def test_rows_that_are_all_overlong_or_none(tmp_path, tokenizer):
    path = tmp_path / "rows.jsonl"
    settings = config(str(path), overlong_prompts="drop", cache={"folder": str(tmp_path / "cache"), "above_mib": 0})
    path.write_text(json.dumps({"prompt": "1+2+3+4+5+6?", "answer": "21"}) + "\n")
    with pytest.raises(UserError, match="all 1 prompts are longer than 8 tokens"):
        load_train(settings, tokenizer)
    path.write_text("\n")
    with pytest.raises(UserError, match="there are no rows"):
        load_train(settings, tokenizer)


def test_anything_that_makes_other_prompts_is_prepared_anew(tmp_path, tokenizer):
    """And the same again, by a tokenizer read anew, is not: no row is even looked at."""
    path, cache = written(tmp_path, "jsonl"), tmp_path / "cache"

    def folders(other=tokenizer, vocabulary=None, loader=load_train, **changes):
        values = {"curriculum": EASIEST, "overlong_prompts": "drop", **changes}
        loader(config(path, cache={"folder": str(cache), "above_mib": 0}, **values), other, vocabulary)
        return len(list(cache.iterdir()))

    assert folders() == 1
    (made,) = cache.iterdir()
    times = {file: file.stat().st_mtime_ns for file in made.iterdir()}
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert folders() == 1 == folders(carry_task.make_tokenizer())
    assert {file: file.stat().st_mtime_ns for file in made.iterdir()} == times
    changes = [
        {"prompt_suffix": "\n"},
        {"max_prompt_tokens": 20},
        {"chat_template": True},
        {"vocabulary": 1000},
        {"curriculum": EASIEST.model_copy(update={"column": "note.parts"})},
        {"other": type(tokenizer).from_pretrained(tmp_path / "tokenizer", extra_special_tokens=["<more>"])},
        {"loader": load_eval, "eval": {"hard": {"path": path, "max_rows": None}}},
    ]
    count = 1
    for change in changes:
        if "note.parts" in repr(change):
            with pytest.raises(UserError, match=r"column 'note.parts' is \[0, None\], not a number"):
                folders(**change)
        else:
            folders(**change)
        count += 1
        assert len(list(cache.iterdir())) == count, change
    Path(path).write_text(Path(path).read_text().replace('"7+1?"', '"8+1?"'))  # as long as before
    assert folders() == count + 1


def test_a_place_where_nothing_can_be_prepared(tmp_path, tokenizer):
    (tmp_path / "file").write_text("")
    settings = config(written(tmp_path, "jsonl"), cache={"folder": str(tmp_path / "file"), "above_mib": 0})
    with pytest.raises(UserError, match=r"prompts cannot be prepared there \(NotADirectoryError.*data.cache.folder"):
        load_train(settings, tokenizer)


def started(tmp_path, *arguments):
    made = tmp_path / "made"
    made.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "tests.data.preparing_worker", "2003", str(tmp_path / "folder"), str(made)]
    return subprocess.Popen([*words, *map(str, arguments)], cwd=Path(__file__).parents[2])


def rows_made(tmp_path):
    return Counter(int(line) for file in (tmp_path / "made").iterdir() for line in file.read_text().split())


def test_several_processes_make_every_row_once(tmp_path):
    processes = [started(tmp_path) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert rows_made(tmp_path) == Counter(range(2003))
    prepared = Prepared(tmp_path / "folder", "s", None)
    assert [p.token_ids for p in prepared] == [[n] for n in range(2003) if n % 7 != 3]
    assert prepared.meta["rows"] == 2003
    assert prepared.by_id({"s:9", "s:10", "s:2002", "t:9", "s:5000"}).keys() == {"s:9", "s:2002"}


def test_what_a_dead_process_was_making_others_make(tmp_path):
    """The one that dies begins first, and is gone while it holds the lock of its part."""
    assert started(tmp_path, 1077).wait(120) == 9
    assert not (tmp_path / "folder" / META).exists()
    before = rows_made(tmp_path)
    processes = [started(tmp_path) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    again = rows_made(tmp_path) - before
    assert again == Counter(range(1050, 2003))  # its unfinished part, of 50 rows, from the beginning
    assert len(Prepared(tmp_path / "folder", "s", None)) == sum(n % 7 != 3 for n in range(2003))


def test_prompts_prepared_by_the_command_are_those_that_a_run_takes(carry, tmp_path):
    words = [f"prepared={carry}", f"model.path={carry}/init", "data.cache.above_mib=0", f"data.cache.folder={tmp_path}"]
    told = run("tools/prepare.py", "prompts", *words, "--processes", "2")
    names = {folder.name for folder in tmp_path.iterdir()}
    assert len(names) == 4 and "train hard" in told and "eval easy" in told
    small = [
        "trainer.steps=1",
        "trainer.prompts_per_step=2",
        "trainer.samples_per_prompt=2",
        "evaluation.every_steps=0",
    ]
    run("tools/train.py", *words, *small, "evaluation.at_start=false", f"run.folder={tmp_path}/runs", "run.name=r")
    assert {folder.name for folder in tmp_path.iterdir()} == names | {"runs"}
    words[-1] += f"/more data.train.hard.path={tmp_path}/none.jsonl"
    bad = launch("tools/prepare.py", "prompts", *" ".join(words).split(), "--processes", "2")
    assert bad.returncode == EXIT_CODE and "there is no such file or folder" in bad.stderr


def test_a_folder_that_others_can_write_into_is_refused(tmp_path):
    """What is pickled there would run here."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o770)
    with pytest.raises(UserError, match=f"{folder}: others may write into it"):
        preparing.prepare(folder, lambda: [], lambda row: None, lambda: "flat")

"""`tools/golden.py` as a process, against a teacher that is a process of its own."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gcpo_mcore.commands import golden as commands_golden
from gcpo_mcore.curation import damage
from gcpo_mcore.data.config import Keys
from gcpo_mcore.data.files import read_rows
from gcpo_mcore.data.shapes import columns_of
from gcpo_mcore.rewarding.extraction import AfterLast, Boxed
from tests.launching import ENVIRONMENT, ROOT, launch

COLON = AfterLast(name="after_last", marker=":")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@contextlib.contextmanager
def teacher(folder, *hold_after):
    """The base URL of a running server; its requests are in folder/requests.jsonl. After so many, it waits for `go`."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("openai_server.py")), folder, *map(str, hold_after)]
    )
    try:
        while not (folder / "port").exists():
            assert process.poll() is None
            time.sleep(0.02)
        yield f"http://127.0.0.1:{(folder / 'port').read_text()}/v1"
    finally:
        process.kill()
        process.wait()


def golden(*arguments):
    return launch("tools/golden.py", *map(str, arguments))


def test_a_teacher_fills_what_is_missing(tmp_path):
    rows = [
        {"prompt": "3+8?", "answer": "11", "kind": "a"},
        {"prompt": "2+2?", "answer": "4", "golden_answer": "by heart:4", "golden_source": "human"},
        {"prompt": "2+3?", "answer": "5", "golden_answer": "wrong:6"},
        {"prompt": "1+1?", "answer": "7"},
        {"prompt": "long 1+2?", "answer": "3"},
        {"prompt": "busy 4+4?", "answer": "8"},
    ]
    out = tmp_path / "out.jsonl"
    with teacher(tmp_path) as url:
        done = golden(
            "fill", write(tmp_path / "in.jsonl", rows), out, "--teacher", url, "--model", "solver", "--tries", 4,
            "--parallel", 2, "data.system_prompt=Be brief.", "--temperature", 0.3,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = [(r["golden_answer"], r["golden_source"]) for r in read(out)]
    assert made == [
        ("3+8:11", "teacher:solver"),  # the shortest that is right and whole
        ("by heart:4", "human"),
        ("2+3:5", "teacher:solver"),
        (None, None),
        (None, None),
        ("4+4:8", "teacher:solver"),
    ]
    assert read(out)[0]["kind"] == "a"
    assert "6 rows; 3 filled, 1 kept, 1 no candidate, 1 none was right" in done.stdout
    assert "the teacher refused 1 prompts, the first: " in done.stderr and "the prompt is too long" in done.stderr
    requests = read(tmp_path / "requests.jsonl")
    assert {r["path"] for r in requests} == {"/v1/chat/completions"} and {r["temperature"] for r in requests} == {0.3}
    assert requests[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert sorted(r["seed"] for r in requests if r["messages"][-1]["content"] == "3+8?") == [0, 1, 2, 3]
    assert not [r for r in requests if r["messages"][-1]["content"] == "2+2?"]
    assert not (tmp_path / "out.jsonl.part").exists()
    # The output is a data set, whatever its shape.
    row = read_rows(str(out))[0]
    assert columns_of(row, Keys(prompt=None, answer=None, golden_answer=None)).golden_answer(row) == "3+8:11"


def test_a_killed_call_goes_on_where_it_was(tmp_path):
    rows = [{"prompt": f"{i}+1?", "answer": str(i + 1)} for i in range(12)]
    path, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    part = tmp_path / "out.jsonl.part"
    with teacher(tmp_path, 12) as url:  # two rows at a time, three tries each: it is held in the fifth and sixth
        arguments = ["fill", path, str(out), "--teacher", url, "--model", "solver", "--tries", "3", "--parallel", "2"]
        first = subprocess.Popen(
            [sys.executable, str(ROOT / "tools/golden.py"), *arguments], cwd=ROOT, env=ENVIRONMENT,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        asked = tmp_path / "requests.jsonl"
        while not asked.exists() or len(asked.read_bytes().splitlines()) < 14:
            assert first.poll() is None
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
        first.wait()
        (tmp_path / "go").touch()
        assert not out.exists()
        assert len(part.read_bytes().splitlines()) == 1 + 4
        with open(part, "a") as file:
            file.write('{"row": 11, "golden')  # the line that it was writing
        other = golden(*arguments, "--temperature", "0.1")
        assert other.returncode == 2 and "with other settings; remove it to start anew" in other.stderr
        second = golden(*arguments)
        assert second.returncode == 0, second.stderr
        assert len(read(asked)) == 14 + 3 * (12 - 4)
    assert [r["golden_answer"] for r in read(out)] == [f"{i}+1:{i + 1}" for i in range(12)]
    assert "is there already" in golden(*arguments).stderr


class StandingClock:
    """In place of the module `time`: it stands, and writes down how long it was asked to sleep."""

    def __init__(self):
        self.slept_s = []

    def monotonic(self):
        return 1000.0

    def sleep(self, seconds):
        self.slept_s.append(seconds)


def test_the_rate_limit_spreads_the_requests(tmp_path, monkeypatch):
    """In this process, by a clock that stands: each of the requests waits for its own time."""
    rows = [{"prompt": f"{i}+1?", "answer": str(i + 1)} for i in range(4)]
    clock = StandingClock()
    monkeypatch.setattr("gcpo_mcore.curation.teacher.time", clock)
    with teacher(tmp_path) as url:
        words = [
            "fill", write(tmp_path / "in.jsonl", rows), str(tmp_path / "out.jsonl"), "--teacher", url,
            "--model", "solver", "--tries", "2", "--requests-per-minute", "300",
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["golden", *words])
        assert not commands_golden.main()
    assert len(read(tmp_path / "requests.jsonl")) == 8
    assert sorted(clock.slept_s) == pytest.approx([0.2 * n for n in range(8)])  # 300 a minute is one in 0.2 s


def test_a_teacher_that_cannot_answer_is_one_line(tmp_path):
    path = write(tmp_path / "in.jsonl", [{"prompt": "1+1?", "answer": "2"}])
    with teacher(tmp_path) as url:
        done = golden("fill", path, tmp_path / "out.jsonl", "--teacher", url, "--model", "solvr")
    assert done.returncode == 2 and "status 404" in done.stderr and "no such model" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()
    done = golden("fill", path, tmp_path / "o.jsonl", "--teacher", url, "--model", "m", "--api-key-env", "NO_SUCH_KEY")
    assert done.returncode == 2 and "NO_SUCH_KEY: the variable is not set" in done.stderr


def test_a_column_becomes_the_golden_answer_if_it_is_right(tmp_path):
    rows = [
        {"question": "6*7?", "answer": "six sevens\n#### 42"},
        {"question": "6*8?", "answer": "six eights\n#### 48", "note": "no, forty-nine"},
    ]
    rows = [{**row, "note": row.get("note", "six sevens")} for row in rows]
    out = tmp_path / "out.jsonl"
    done = golden(
        "fill", write(tmp_path / "in.jsonl", rows), out, "--column", "note", "--suffix", r": \boxed{{answer}}",
        "--replace", "data=files", "reward=math_verify", "reward.deadline_s=60",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [(r["golden_answer"], r["golden_source"]) for r in read(out)] == [
        (r"six sevens: \boxed{42}", "column:note"),
        (r"no, forty-nine: \boxed{48}", "column:note"),
    ]
    done = golden(
        "fill", tmp_path / "in.jsonl", tmp_path / "bare.jsonl", "--column", "note", "data=files", "reward=math_verify",
        "reward.deadline_s=60",
    )  # fmt: skip
    assert [r["golden_answer"] for r in read(tmp_path / "bare.jsonl")] == [None, None]  # without a box nothing is right


# --- degrade ----------------------------------------------------------------------------------------------------

CARRY = "0+9+6=15;1+3+6=10:105"
SEPARATOR = r"\n+|;|[.!?] "


@pytest.mark.parametrize(
    ("text", "rule", "parts"),
    [
        (CARRY, COLON, ("0+9+6=15;1+3+6=10", ":105", "105")),
        (r"Six. Seven. \boxed{42}.", Boxed(name="boxed"), ("Six. Seven. ", r"\boxed{42}.", "42")),
        (r"<think>5</think> so \boxed{4}", Boxed(name="boxed"), ("<think>5</think> so ", r"\boxed{4}", "4")),
        ("no answer", COLON, None),
        (":105", COLON, None),
    ],
)
def test_split(text, rule, parts):
    assert damage.split(text, rule) == parts


def test_steps_are_cut_behind_the_separator_and_join_again():
    body = "One. Two;three\n\nfour"
    assert damage.steps_of(body, SEPARATOR) == ["One. ", "Two;", "three\n\n", "four"]
    assert damage.truncate(body, SEPARATOR, 0.5) == "One. Two;"
    assert damage.truncate(body, SEPARATOR, 0.24) == body and damage.truncate(body, SEPARATOR, 1.0) == ""


def test_corruption_changes_one_digit_in_a_share_of_the_steps():
    body = "12+30=42;" * 400
    changed, count = damage.corrupt(body, SEPARATOR, 0.25, random.Random(0))
    differing = [(a, b) for a, b in zip(body.split(";"), changed.split(";"), strict=True) if a != b]
    assert len(differing) == count and 70 <= count <= 130
    assert all(sum(x != y for x, y in zip(a, b, strict=True)) == 1 for a, b in differing)
    assert damage.corrupt("no digits;none", SEPARATOR, 1.0, random.Random(0)) == ("no digits;none", 0)


@pytest.mark.parametrize(("final", "answer"), [(":105", "105"), (r"\boxed{\frac{1}{2}}.", r"\frac{1}{2}")])
def test_a_wrong_answer_is_of_the_same_kind(final, answer):
    for seed in range(50):
        other = damage.wrong(final, answer, random.Random(seed))
        assert other != final and len(other) == len(final)
    assert damage.wrong(": (B)", "(B)", random.Random(0)) in (": (A)", ": (C)", ": (D)")
    assert damage.wrong(": yes", "yes", random.Random(0)) is None


def degraded(tmp_path, *switches):
    rows = [{"prompt": f"q{i}", "answer": "105", "golden_answer": CARRY, "golden_source": "human"} for i in range(40)]
    rows += [{"prompt": "q", "answer": "105", "golden_answer": None}]
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}.jsonl"
    done = golden("degrade", write(tmp_path / "in.jsonl", rows), out, *switches)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("; ")[2], read(out)


def test_degrade_changes_what_it_says(tmp_path):
    told, rows = degraded(tmp_path, "--truncate", 0.5)
    assert {r["golden_answer"] for r in rows} == {"0+9+6=15;:105", None}
    assert {r["golden_source"] for r in rows} == {"human+degraded", None}
    assert told.startswith("without a golden answer 1, truncated 40, corrupted 0, wrong answers 0, still accepted by")
    assert told.rstrip().endswith(" 40")

    told, rows = degraded(tmp_path, "--wrong-answer", 0.5)
    touched = [r for r in rows if r["golden_degraded"] == ["wrong_answer"]]
    assert 10 <= len(touched) <= 30 and all(not r["golden_answer"].endswith(":105") for r in touched)
    assert f"wrong answers {len(touched)}, still accepted by the reward {40 - len(touched)}" in told
    assert all(r["golden_source"] == "human" for r in rows[:40] if not r["golden_degraded"])

    _, first = degraded(tmp_path, "--corrupt", 0.5, "--seed", 1)
    _, again = degraded(tmp_path, "--corrupt", 0.5, "--seed", 1)
    _, other = degraded(tmp_path, "--corrupt", 0.5, "--seed", 2)
    assert first == again != other
    assert all(r["golden_answer"].endswith(":105") for r in first[:40])
    steps = sum(int(d.split(":")[1]) for r in first for d in r["golden_degraded"])
    assert 25 <= steps <= 55  # of 80

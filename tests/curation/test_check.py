"""`tools/prepare.py check`: a file with one row of every fault, and the report that names each."""

import json

from tests.launching import launch

GOOD = {"prompt": "3+8?", "answer": "11", "golden_answer": "0+3+8=11:11"}
# problem -> row
FAULTS = {
    "unusable": {"prompt": "1+1?", "anwser": "2"},
    "prompt too long": {"prompt": "1+1+1+1+1?", "answer": "5"},
    "duplicate": {**GOOD, "golden_answer": None},
    "contradiction": {"prompt": "3+8?", "answer": "12"},
    "answer rejected": {"prompt": "2+2?", "answer": "4:5"},  # what comes after the last ':' is 5
    "golden rejected": {"prompt": "2+3?", "answer": "5", "golden_answer": "0+2+3=06:6"},
    "golden too long": {"prompt": "2+4?", "answer": "6", "golden_answer": "0+2+4=06;" * 4 + ":6"},
}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def check(carry, tmp_path, *words):
    done = launch("tools/prepare.py", "check", *words, f"model.path={carry}/init", "--bad", str(tmp_path / "bad.jsonl"))
    bad = tmp_path / "bad.jsonl"
    return done, [json.loads(line) for line in bad.read_text().splitlines()] if bad.exists() else None


def test_every_fault_is_found_and_put_aside(carry, tmp_path):
    path = write(tmp_path / "rows.jsonl", [GOOD, *FAULTS.values()])
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{\n")
    done, bad = check(carry, tmp_path, path, str(broken))
    assert done.returncode == 1, done.stderr
    found = [(b["problem"], b["where"]) for b in bad if b["row"] is not None]
    expected = [(problem, f"{path}, line {line}") for line, problem in enumerate(FAULTS, start=2)]
    assert sorted(found) == sorted(expected)
    assert all(b["row"] == FAULTS[b["problem"]] for b in bad if b["row"] is not None)
    (whole,) = [b for b in bad if b["row"] is None]
    assert whole["detail"].startswith(f"{broken}, line 1: not valid JSON")
    details = {b["problem"]: b["detail"] for b in bad}
    assert details["contradiction"] == f"the answer is '12', in {path}, line 1 it is '11'"
    assert details["golden too long"] == "39 tokens, the limit is 22"
    assert f"unusable, the first: {path}, line 2: there is no column 'answer' (nearest: anwser)" in done.stdout
    assert f"8 problems, in {tmp_path}/bad.jsonl" in done.stdout


def test_a_reference_that_the_verifier_cannot_read_says_so(carry, tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"prompt": "3+8?", "answer": 11}, {"prompt": "12?", "answer": "a dozen"}])
    done, bad = check(carry, tmp_path, path, "reward=numeric")
    assert done.returncode == 1
    (only,) = bad
    assert (only["problem"], only["detail"]) == ("answer rejected", "'a dozen' (error in grading)")
    assert "the reference answer 'a dozen' is not a number" in done.stderr


def test_the_sources_of_the_config_are_checked_without_names(carry, tmp_path):
    """Of the quick start's data only the repeated one-digit problems are found."""
    done, bad = check(carry, tmp_path, f"prepared={carry}")
    assert done.returncode == 1
    assert {b["problem"] for b in bad} == {"duplicate"}
    assert {b["row"]["kind"] for b in bad} == {"one_digit", "one_digit_plus_one"}


def test_good_data_and_mistakes_in_the_call(carry, tmp_path):
    path = write(tmp_path / "rows.jsonl", [GOOD])
    done, bad = check(carry, tmp_path, path)
    assert (done.returncode, bad) == (0, []) and "nothing is wrong" in done.stdout
    done, _ = check(carry, tmp_path, path, "reward=numerc")
    assert done.returncode == 2
    assert done.stderr.strip().startswith("prepare: reward=numerc: unknown choice (nearest: numeric)")

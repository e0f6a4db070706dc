"""`tools/prepare.py check`: a file with one row of every fault, and the report that names each."""

import json
import shutil

from transformers import AutoTokenizer

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
    done = launch("tools/prepare.py", "check", f"model.path={carry}/init", *words, "--bad", str(tmp_path / "bad.jsonl"))
    bad = tmp_path / "bad.jsonl"
    return done, [json.loads(line) for line in bad.read_text().splitlines()] if bad.exists() else None


def test_every_fault_is_found_and_put_aside(carry, tmp_path):
    path = write(tmp_path / "rows.jsonl", [GOOD, *FAULTS.values()])
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{\n")
    absent = str(tmp_path / "absent.jsonl")
    done, bad = check(carry, tmp_path, path, str(broken), absent)
    assert done.returncode == 1, done.stderr
    found = [(b["problem"], b["where"]) for b in bad if b["row"] is not None]
    expected = [(problem, f"{path}, line {line}") for line, problem in enumerate(FAULTS, start=2)]
    assert sorted(found) == sorted(expected)
    assert all(b["row"] == FAULTS[b["problem"]] for b in bad if b["row"] is not None)
    line, whole = [b for b in bad if b["row"] is None]
    assert line["where"] == f"{broken}, line 1" and line["detail"].startswith("not valid JSON")
    assert whole["where"] == absent and whole["detail"].endswith("there is no such file or folder")
    details = {b["problem"]: b["detail"] for b in bad}
    assert details["contradiction"] == f"the answer is '12', in {path}, line 1 it is '11'"
    assert details["golden too long"] == "39 tokens, the limit is 22"
    assert f"unusable, the first: {path}, line 2: there is no column 'answer' (nearest: anwser)" in done.stdout
    assert f"9 problems, in {tmp_path}/bad.jsonl" in done.stdout


# A line, and what is found in it: nothing in the first and the last.
ODD_LINES = {
    '{"prompt": "3+8?", "answer": "11"}': None,
    '{"prompt": "1+\\ud83d?", "answer": "2"}': "column 'prompt' holds half of a surrogate pair",
    '{"prompt": "2+2?", "answer": "4", "note": "\\udc00"}': "column 'note' holds half of a surrogate pair",
    '{"prompt": "2+2?", "answer": ' + "7" * 5000 + "}": "column 'answer' has an integer of 5,000 digits",
    '{"prompt": "2+2?", "answer": "4", "x": ' + "[" * 9999 + "]" * 9999 + "}": "has lists and objects nested deeper",
    '{"prompt": "2+2?", "answer": "4", "answer": "5"}': "has the key 'answer' twice",
    '{"prompt": "2+2?", "answer": Infinity}': "column 'answer' is inf, not a finite number",
    '{"prompt": [{"role": "user", "content": ""}], "answer": 2}': "column 'prompt': message 0 (user) is blank",
    "[{'prompt': 1}]": "not valid JSON",
    '{"prompt": "2+3?", "answer": "5", "score": NaN}': None,
}


def test_rows_that_cannot_be_read_are_findings_among_the_others(carry, tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(line + "\n" for line in ODD_LINES))
    done, bad = check(carry, tmp_path, str(path))
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    problems = {number: problem for number, problem in enumerate(ODD_LINES.values(), start=1) if problem}
    found = {b["where"]: b["detail"] for b in bad}
    assert found.keys() == {f"{path}, line {number}" for number in problems} and len(bad) == len(found)
    assert all(found[f"{path}, line {number}"].startswith(problem) for number, problem in problems.items())
    assert {b["problem"] for b in bad} == {"unusable"}


def test_tokens_that_the_model_has_no_row_for(carry, tmp_path):
    """An added token may be there, as long as no row needs it."""
    model = tmp_path / "model"
    shutil.copytree(carry / "init", model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<tool>"])  # 25, of a model with 25 rows
    tokenizer.save_pretrained(model)
    path = write(tmp_path / "rows.jsonl", [GOOD, {"prompt": "1<tool>?", "answer": "1"}])
    done, (bad,) = check(carry, tmp_path, path, f"model.path={model}")
    assert done.returncode == 1 and bad["where"] == f"{path}, line 2"
    assert bad["detail"].startswith("column 'prompt' has token id 25, the model has 25 rows of embeddings")
    tokenizer.eos_token = "<tool>"  # golden answers and answers that end by themselves have it
    tokenizer.save_pretrained(model)
    done, _ = check(carry, tmp_path, path, f"model.path={model}")
    assert done.returncode == 2 and "the tokenizer's end token <tool> is 25, the model has only 25" in done.stderr


def test_a_reference_that_the_verifier_cannot_read_says_so(carry, tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"prompt": "3+8?", "answer": 11}, {"prompt": "12?", "answer": "a dozen"}])
    done, bad = check(carry, tmp_path, path, "reward=numeric")
    assert done.returncode == 1
    (only,) = bad
    assert (only["problem"], only["detail"]) == ("answer rejected", "'a dozen' (error in grading)")
    assert "the reference answer 'a dozen' is not a number" in done.stderr


def test_what_the_curriculum_needs_is_missed(carry, tmp_path):
    """In training rows only, and in what is named: held-out ones have no curriculum."""
    order = ["data/curriculum=easiest_first", "data.curriculum.column=level"]
    path = write(tmp_path / "rows.jsonl", [{**GOOD, "level": 1}, {"prompt": "1+1?", "answer": "2"}])
    done, (bad,) = check(carry, tmp_path, path, *order)
    assert done.returncode == 1 and (bad["where"], bad["problem"]) == (f"{path}, line 2", "unusable")
    assert bad["detail"] == "there is no column 'level' (data.curriculum.column)"
    held_out = write(tmp_path / "held_out.jsonl", [{"prompt": "1+2?", "answer": "3"}])
    done, bad = check(
        carry, tmp_path, "data=files", f"data.train.train.path={path}", f"data.eval.test.path={held_out}",
        "reward=exact_match", "data.chat_template=false", "data.max_prompt_tokens=8", *order,
    )  # fmt: skip
    assert [b["where"] for b in bad] == [f"{path}, line 2"], done.stdout


def test_special_tokens_at_the_edges_are_found_with_their_rows(carry, tmp_path):
    rows = [
        GOOD,
        {"prompt": "1+1?<eos>", "answer": "2"},
        {"prompt": "1+2?", "answer": "3", "golden_answer": "1<eos>:3"},
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    done, bad = check(carry, tmp_path, path)
    assert done.returncode == 1 and [(b["where"], b["problem"]) for b in bad] == [
        (f"{path}, line 2", "unusable"),
        (f"{path}, line 3", "unusable"),
    ]
    assert bad[0]["detail"] == "column 'prompt' ends with the token <eos> (2), which ends a response"
    assert bad[1]["detail"].startswith("column 'golden_answer' has the token <eos> (2) inside")


def test_references_of_prompts_that_open_the_thinking(carry, tmp_path):
    """A response begins inside it, so the shortest one that answers has to end it first."""
    path = write(tmp_path / "rows.jsonl", [{"prompt": "3+8?", "answer": "11"}])
    done, bad = check(
        carry, tmp_path, path, "reward=math_verify", "data.prompt_suffix='<think>'", "data.max_prompt_tokens=30"
    )
    assert (done.returncode, bad) == (0, []), done.stdout


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

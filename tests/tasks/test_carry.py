"""The carry task: right golden answers, the promised files, the same bytes every time, a tokenizer that comes back."""

import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer, Qwen2Config

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.files import read_rows
from gcpo_mcore.tasks import carry
from gcpo_mcore.tasks import carry_files as quickstart
from tests.launching import launch

ALL = carry.problems()


def prompts(rows, *kinds):
    return [r["prompt"] for r in rows if not kinds or r["kind"] in kinds]


def test_the_examples_of_the_docs():
    made = [
        carry.one_digit(3, 8),
        carry.one_digit_plus_one(3, 8),
        carry.two_digit(39, 60),
        carry.two_digit_columns(39, 66),
        carry.two_digit(39, 66),
    ]
    docs = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    for problem in made:
        assert f"| `{problem.kind}` | `{problem.prompt}` | `{problem.golden_answer}` |" in docs
        assert f"{problem.prompt:<10}{problem.golden_answer}" in carry.__doc__
    assert made[-1].golden_answer == "0+9+6=15;1+3+6=10:105"


def test_the_number_of_problems_of_each_kind():
    counts = {kind: len(found) for kind, found in ALL.items()}
    assert counts == {
        "one_digit": 100,
        "one_digit_plus_one": 100,
        "two_digit": 4455,
        "two_digit_columns": 3645,
        "two_digit_carry": 3645,
    }
    for kind, found in ALL.items():
        assert {p.kind for p in found} == {kind}
        assert len({p.prompt for p in found}) == len(found)


@pytest.mark.parametrize("kind", [k for k in ALL if k != "two_digit_columns"])
def test_an_answer_is_the_sum(kind):
    for p in ALL[kind]:
        assert int(p.answer) == sum(map(int, p.prompt.rstrip("?").split("+")))
        assert p.answer == str(int(p.answer))
        assert p.golden_answer.split(":")[1] == p.answer


def test_columns_are_added_without_a_carry():
    for p in ALL["two_digit_columns"]:
        a, b = p.prompt.rstrip("?").split(";")
        assert p.answer == f"{int(a[0]) + int(b[0])}{(int(a[1]) + int(b[1])) % 10}"
        assert int(p.answer) == int(a) + int(b) - 10  # never the sum
        assert p.golden_answer.split(":")[1] == p.answer


@pytest.mark.parametrize("kind", ["two_digit", "two_digit_columns", "two_digit_carry"])
def test_every_step_of_a_golden_answer_is_right(kind):
    for p in ALL[kind]:
        steps = [re.fullmatch(r"(\d)\+(\d)\+(\d)=(\d)(\d)", s) for s in p.golden_answer.split(":")[0].split(";")]
        (c0, x0, y0, s0, u0), (c1, x1, y1, s1, u1) = [tuple(map(int, s.groups())) for s in steps]
        assert (10 * s0 + u0, 10 * s1 + u1) == (c0 + x0 + y0, c1 + x1 + y1)
        a, b = re.fullmatch(r"(\d\d)[+;](\d\d)\?", p.prompt).groups()
        assert (f"{x1}{x0}", f"{y1}{y0}") == (a, b)
        assert c0 == 0
        assert c1 == (1 if kind == "two_digit_carry" else 0)
        assert int(p.answer) == 10 * (10 * s1 + u1) + u0


def test_every_step_of_a_verbose_answer_is_right():
    assert carry.verbose(39, 66) == "0+9+6=15;0+3+6=09;1+09=10:105" and carry.verbose(39, 66) in carry.verbose.__doc__
    rows = carry.make(0)["train_hard"]
    for row in rows:
        steps, answer = row["golden_verbose"].split(":")
        for step in steps.split(";"):
            terms, total = step.split("=")
            assert sum(map(int, terms.split("+"))) == int(total) and len(total) == 2
        units, tens, carried = steps.split(";")
        (x0, y0), (x1, y1) = (step[2:5].split("+") for step in (units, tens))
        assert f"{x1}{x0}+{y1}{y0}?" == row["prompt"] and answer == row["answer"]
        assert carried.startswith(f"1+{tens[-2:]}=") and int(answer) == int(carried[-2:] + units[-1])
    assert max(len(row["golden_verbose"]) for row in rows) == 29


@pytest.mark.parametrize("seed", [0, 1])
def test_the_files_are_what_the_docs_say(seed):
    files = carry.make(seed)
    assert {stem: len(rows) for stem, rows in files.items()} == {
        "train_easy": 8000,
        "train_hard": 3517,
        "eval_easy": 128,
        "eval_hard": 128,
    }
    for stem, n in (("train_easy", 8000), ("eval_easy", 128)):
        kinds = Counter(r["kind"] for r in files[stem])
        assert kinds == {kind: round(n * share) for kind, share in carry.SHARES.items()}
    hard = prompts(files["train_hard"]) + prompts(files["eval_hard"])
    assert sorted(hard) == sorted(p.prompt for p in ALL["two_digit_carry"])  # all of them, each once: disjoint
    two = ("two_digit", "two_digit_columns")
    trained = prompts(files["train_easy"], *two)
    assert len(set(trained)) == len(trained)
    assert not set(trained) & set(prompts(files["eval_easy"], *two))
    assert not set(prompts(files["train_easy"])) & set(hard)
    times = Counter(prompts(files["train_easy"], "one_digit", "one_digit_plus_one"))
    assert set(times.values()) == {16, 24}


def test_the_seed_decides():
    assert carry.make(0) == carry.make(0)
    assert prompts(carry.make(0)["eval_hard"]) != prompts(carry.make(1)["eval_hard"])


def test_the_tokenizer_round_trips_also_from_disk(tmp_path):
    made = carry.make_tokenizer()
    made.save_pretrained(tmp_path)
    Qwen2Config(vocab_size=25).save_pretrained(tmp_path)  # AutoTokenizer looks at the model's type
    text = carry.CHARACTERS + ALL["two_digit_carry"][0].golden_answer
    for tokenizer in (made, AutoTokenizer.from_pretrained(tmp_path)):
        ids = tokenizer.encode(text)
        assert ids == [4 + carry.CHARACTERS.index(c) for c in text]
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == text
        assert len(tokenizer) == 25
        assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
        messages = [{"role": "user", "content": "3+8?"}]
        assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == "3+8?"


def test_prepare_makes_the_same_bytes_and_reuses_them(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        lines = quickstart.make_data(folder, seed=0)
        assert len(lines) == 4 and "already there" not in "".join(lines)
    names = sorted(p.name for p in folders[0].iterdir())
    assert names == ["eval_easy.jsonl", "eval_hard.jsonl", "manifest.json", "train_easy.jsonl", "train_hard.parquet"]
    assert [(folders[0] / n).read_bytes() for n in names] == [(folders[1] / n).read_bytes() for n in names]
    rows = read_rows(str(folders[0] / "train_hard.parquet"))
    assert [r.values for r in rows] == carry.make(0)["train_hard"]

    before = (folders[0] / "train_easy.jsonl").stat().st_mtime_ns
    lines = quickstart.make_data(folders[0], seed=0)
    assert all("already there" in line for line in lines) and len(lines) == 4
    assert (folders[0] / "train_easy.jsonl").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="was made with seed 0, this call has seed 1"):
        quickstart.make_data(folders[0], seed=1)
    (folders[0] / "eval_hard.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"eval_hard\.jsonl: is not the file that .*manifest\.json describes"):
        quickstart.make_data(folders[0], seed=0)


def test_what_was_made_is_said_on_stdout(tmp_path):
    for note in ("", "already there"):
        done = launch("tools/prepare.py", "--out", str(tmp_path / "x"), "--skip-starter")
        assert done.returncode == 0
        *files, model = done.stdout.splitlines()
        assert len(files) == 4 and all(f"{tmp_path}/x/" in line and note in line for line in [*files, model])
        assert "init" in model and str(tmp_path) not in done.stderr


def test_prepare_makes_the_same_model_and_leaves_no_half_of_it(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).mkdir()
        quickstart.make_init(tmp_path / name, seed=0)
    weights = [(tmp_path / name / "init" / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    monkeypatch.setattr(carry, "make_tokenizer", lambda: sys.exit("killed"))
    (tmp_path / "c").mkdir()
    with pytest.raises(SystemExit):
        quickstart.make_init(tmp_path / "c", seed=0)
    assert not list((tmp_path / "c").iterdir())


def test_the_starter_is_trained_and_converted_once(tmp_path, monkeypatch):
    calls = []

    def run(command, env, check):
        calls.append(command)
        assert env["OMP_NUM_THREADS"] == "1"
        if "to-hf" in command:
            Path(command[-1]).mkdir()
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(quickstart.subprocess, "run", run)
    said = [quickstart.make_starter(tmp_path, seed=3, processes=2) for _ in range(2)]
    assert said == [
        f"{tmp_path}/starter: trained as configs/experiment/carry_warmup.yaml says",
        f"{tmp_path}/starter: already there",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["starter"]
    train, convert = calls
    assert train[:6] == [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert {"experiment=carry_warmup", f"prepared={tmp_path}", "seed=3"} < set(train)
    assert convert[1:4] == ["-m", "gcpo_mcore.commands.convert", "to-hf"]


def test_a_failed_warm_up_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": 7}))
    with pytest.raises(UserError, match=r"exit code 7 from: python -m torch\.distributed\.run"):
        quickstart.make_starter(tmp_path, seed=0, processes=1)
    assert not list(tmp_path.iterdir())

"""The commands of docs/golden.md for data sets of the field, run as they stand there on tiny files of those forms."""

import re
import shlex

import pyarrow
import pyarrow.parquet
import pytest

from gcpo_mcore.run.load import load_config
from tests.curation.test_golden import golden, read, teacher, write
from tests.launching import ROOT, launch

SECTION = re.search(r"\n## Known data sets\n(.*?)\n## ", (ROOT / "docs/golden.md").read_text(), re.DOTALL)[1]
# Every command as the words that a shell makes of it.
COMMANDS = [
    shlex.split(block.replace("\\\n", " "))
    for block in re.findall(r"^ {4}(python (?:.*\\\n)*.*)", SECTION, re.MULTILINE)
    if block.startswith("python tools/")
]


def command(*words):
    """The arguments of the documented command that has these words."""
    (found,) = [c for c in COMMANDS if all(any(word in part for part in c) for word in words)]
    return found[2:]


def fill(arguments, source, out, url=None):
    """Runs the command on `source` in place of its own, with the teacher at `url`, and reads its output."""
    word, _, _, *options = arguments
    known = {"http://localhost:30000/v1": url, "NAME": "solver"}
    done = golden(word, source, out, *[known.get(option, option) for option in options])
    assert done.returncode == 0, done.stderr
    return [(r["golden_answer"], r["golden_source"]) for r in read(out)]


def test_gsm8k(tmp_path):
    rows = [
        {
            "question": "Ann sold 48 clips, then half as many. How many in all?",
            "answer": "She sold 48/2 = <<48/2=24>>24 then.\nIn all 48+24 = <<48+24=72>>72.\n#### 72",
        },
        {"question": "How many are 1,000 and 200?", "answer": "They are 1000+200=<<1000+200=1200>>1,200.\n#### 1,200"},
    ]
    path = tmp_path / "gsm8k.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert fill(command("openai/gsm8k", "fill"), path, tmp_path / "out.jsonl") == [
        ("She sold 48/2 = 24 then.\nIn all 48+24 = 72. The answer is \\boxed{72}.", "column:answer"),
        ("They are 1000+200=1,200. The answer is \\boxed{1,200}.", "column:answer"),
    ]


def test_math(tmp_path):
    rows = [
        {
            "problem": "What is $1/2+1/3$?",
            "level": "Level 2",
            "type": "Prealgebra",
            "solution": "It is $3/6+2/6=\\boxed{\\frac{5}{6}}$.",
        },
        {
            "problem": "Where is $x^2<4$?",
            "level": "Level 3",
            "type": "Algebra",
            "solution": "Between the roots: $x \\in \\boxed{(-2,2)}$",
        },
    ]
    made = fill(command("MATH-lighteval"), write(tmp_path / "math.jsonl", rows), tmp_path / "out.jsonl")
    assert made == [(row["solution"], "given") for row in rows]


def test_deepscaler(tmp_path):
    rows = [
        {"problem": "2+3?", "answer": "5", "solution": "Two and three: $\\boxed{5}$"},
        {"problem": "4+4?", "answer": "8", "solution": ""},
        {"problem": "1+6?", "answer": "7", "solution": "It is seven."},
        {"problem": "2+2?", "answer": "4", "solution": "So $\\boxed{5}$."},
    ]
    own = tmp_path / "own.jsonl"
    expected = [("Two and three: $\\boxed{5}$", "given"), (None, None), (None, None), (None, None)]
    path = write(tmp_path / "deepscaler.jsonl", rows)
    assert fill(command("DeepScaleR-Preview"), path, own) == expected
    with teacher(tmp_path) as url:
        made = fill(command("deepscaler_own.jsonl", "--teacher"), own, tmp_path / "out.jsonl", url)
    assert made == [
        expected[0],
        *((f"{a}+{b}: \\boxed{{{a + b}}}", "teacher:solver") for a, b in ((4, 4), (1, 6), (2, 2))),
    ]


def test_dapo_math(tmp_path):
    rows = [
        {
            "prompt": f"{a}+3?",
            "solution": str(a + 3),
            "data_source": "math_dapo",
            "ability": "MATH",
            "reward_model": {"ground_truth": str(a + 3), "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": f"{a}"},
        }
        for a in range(3)
    ]
    path = tmp_path / "dapo.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    with teacher(tmp_path) as url:
        made = fill(command("DAPO-Math-17k"), path, tmp_path / "out.jsonl", url)
    assert made == [(f"{a}+3: \\boxed{{{a + 3}}}", "teacher:solver") for a in range(3)]
    asked = {r["messages"][-1]["content"] for r in read(tmp_path / "requests.jsonl")}
    assert asked == {f"{a}+3? Put the final answer in \\boxed{{}}." for a in range(3)}


def test_the_documented_run_is_a_valid_config():
    config = load_config(command("tools/train.py"))
    assert config.data.eval["test"].path == "hf:openai/gsm8k?split=test&config=main"
    assert config.data.prompt_suffix == r" Put the final answer in \boxed{}."
    assert len(COMMANDS) == 6


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--column", "solution", "--strip", "(("], "--strip ((: not a regular expression"),
        (["--column", "solutoin"], "no row has a column 'solutoin' (nearest: solution)"),
        (["--column", "level"], "line 1: column 'level' is of type int, not a string"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, options, complaint):
    path = write(tmp_path / "in.jsonl", [{"problem": "1+1?", "answer": "2", "solution": ":2", "level": 3}])
    done = launch("tools/golden.py", "fill", path, str(tmp_path / "out.jsonl"), *options, "data=files", "--replace")
    assert done.returncode == 2 and complaint in done.stderr and len(done.stderr.splitlines()) == 1

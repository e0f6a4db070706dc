"""reasoning-gym's tasks: data, golden answers, and a reward that runs nothing of what a model writes."""

import ast
import inspect
import json
import subprocess
import sys

import pytest
import reasoning_gym
from reasoning_gym.factory import DATASETS, ProceduralDataset

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.arithmetic import evaluate
from gcpo_mcore.run.load import load_config
from gcpo_mcore.tasks import reasoning
from tests.launching import ENVIRONMENT, run

SETTINGS = load_config(["reward=reasoning_gym"]).reward.parts["reasoning_gym"].settings
REWARD = rewards.get("reasoning_gym").model_validate(SETTINGS)
VETTED = sys.modules["gcpo_mcore.rewards.reasoning_gym"].VETTED
# Calls and imports with which a scorer could run an answer, or read what it names.
DANGEROUS = {"eval", "exec", "compile", "parse_expr", "sympify", "__import__", "getattr", "open", "system", "Popen"}
FOREIGN = {"sympy", "os", "subprocess", "pickle", "importlib", "bfi"}


def score(row, text):
    (value,) = REWARD([Answer(row["prompt"], text, row["answer"], row)])
    return value


@pytest.mark.parametrize("task", sorted(reasoning.SOLUTIONS))
def test_worked_solutions_are_right_and_end_in_the_answer(task):
    rows = reasoning.make(task, 100, seed=1)
    for row in rows:
        golden = row["golden_answer"]
        assert score(row, golden) == 1.0, golden
        assert golden.count("####") == 1 and len(golden.splitlines()) >= 2
        # Every line that is a plain equation is true.
        for line in golden.splitlines():
            sides = [evaluate(side) for side in line.split("=")] if "=" in line else []
            if task != "gsm_symbolic" and all(sides):
                assert len({value for value, _ in sides}) <= 1, line
    assert len({row["prompt"] for row in rows}) > 50
    assert reasoning.make(task, 3, seed=1) == rows[:3] != reasoning.make(task, 3, seed=2)


def test_an_unknown_task_and_one_without_solutions():
    with pytest.raises(UserError, match=r"no task 'countdwn' \(nearest: countdown\)"):
        reasoning.make("countdwn", 1, 0)
    (row,) = reasoning.make("sudoku", 1, 0)
    assert row["golden_answer"] is None and row["golden_source"] is None
    with pytest.raises(UserError, match="graph_color has no reference answers"):
        reasoning.make("graph_color", 1, 0)


@pytest.mark.parametrize("task", VETTED)
def test_a_vetted_scorer_is_strict(task):
    dataset = reasoning_gym.create_dataset(task, size=4, seed=3)
    rows = reasoning.make(task, 4, seed=3)
    for row in rows:
        assert dataset.score_answer(row["answer"], row | row["reasoning_gym"]) == 1.0  # metadata came through json
        assert score(row, f"so\n#### {row['answer']}") == 1.0
        for junk in [
            "",
            "0",
            "nonsense",
            "[]",
            "{}",
            "null",
            "[[1]]",
            "1" * 500,
            row["answer"][: len(row["answer"]) // 2],
        ]:
            assert score(row, f"#### {junk}") == 0.0, junk


@pytest.mark.parametrize("task", VETTED)
def test_the_modules_of_a_vetted_scorer_run_nothing(task):
    found = [sys.modules[c.__module__] for c in DATASETS[task][0].__mro__ if c is not ProceduralDataset]
    modules = [m for m in found if m.__name__.startswith("reasoning_gym")]
    assert modules
    for module in modules:
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                assert name not in DANGEROUS, f"{module.__name__} calls {name}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not {n.split(".")[0] for n in names} & FOREIGN, module.__name__


ATTACK = "__import__('os').system('touch {}')"


def test_the_attack_is_real(tmp_path):
    """Without it the next test could not fail: the package's own countdown scorer runs the command."""
    mark = tmp_path / "ran"
    code = f"""
import reasoning_gym
dataset = reasoning_gym.create_dataset("countdown", size=1, seed=0)
dataset.score_answer({ATTACK.format(mark)!r}, dataset[0])
"""
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True, timeout=1200)
    assert mark.exists()


@pytest.mark.parametrize("task", sorted(set(DATASETS) - {"composite", "arc_agi", "rearc", "codeio"}))
def test_no_task_runs_an_answer(task, tmp_path):
    mark = tmp_path / "ran"
    metadata = reasoning_gym.create_dataset(task, size=1, seed=0)[0]["metadata"]
    row = {"prompt": "q", "answer": "the reference", "reasoning_gym": {"task": task, "metadata": metadata}}
    attack = ATTACK.format(mark)
    for text in (attack, f"[{attack}]", f"{{{attack}}}", f"1 + {attack}", f'["{attack}"]', f"lambda: {attack}"):
        assert score(row, f"#### {text}") == 0.0
    assert not mark.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6*(98 - 54) - 34 - 66", 1.0),
        ("6 * (98-54) - (34+66)", 1.0),
        ("164", 0.0),
        ("6*(98 - 54) - 34 - 66 + 0", 0.0),
        ("6*(98 - 54) - 34 - 65", 0.0),
        ("98 + 66", 0.0),
        ("9**9**9**9", 0.0),
        ("(" * 100 + "1" + ")" * 100, 0.0),
        ("1" * 10**6, 0.0),
        ("66/0", 0.0),
        ("True", 0.0),
        ("0x42", 0.0),
    ],
)
def test_countdown_by_our_own_arithmetic(text, expected):
    metadata = {"numbers": [66, 34, 98, 54, 6], "target": 164}
    row = {"prompt": "q", "answer": "another", "reasoning_gym": {"task": "countdown", "metadata": metadata}}
    assert score(row, f"#### {text}") == expected


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("42", "42", 1.0),
        ("42.0", "42", 1.0),
        ("1,042", "1042", 1.0),
        ("84/2", "42", 0.0),
        ("1/2", "1/2", 1.0),
        ("2/4", "1/2", 0.0),
        ("1/2", "0.5", 0.0),
    ],
)
def test_a_calculation_is_not_its_result(text, reference, expected):
    row = {"prompt": "q", "answer": reference, "reasoning_gym": {"task": "chain_sum", "metadata": {}}}
    assert score(row, f"#### {text}") == expected


def test_the_recipe_writes_a_data_set_that_passes_its_own_check(tmp_path):
    out = tmp_path / "gsm.jsonl"
    printed = run("tools/prepare.py", "reasoning", "gsm_symbolic", "--rows", "50", "--out", str(out))
    assert "50 rows, 50 with a golden answer" in printed
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(score(row, row["golden_answer"]) == 1.0 for row in rows)

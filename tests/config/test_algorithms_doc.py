"""docs/algorithms.md says what is there: the table of presets, the options, the command lines, the example."""

import re
import shlex

import pytest
from omegaconf import OmegaConf

from gcpo_mcore.run.load import load_config
from tests.config.composed import ALGORITHMS, DOC, PARTS, ROOT, choices, run, said, with_what_stands_elsewhere

TEXT = DOC.read_text()
COMMANDS = [shlex.split(line, comments=True)[2:] for line in re.findall(r"^python tools/train\.py .*$", TEXT, re.M)]
EXAMPLE = dict(re.findall(r"^`((?:my_rl/|pyproject)[^`]+)`\n\n```\w+\n(.*?)^```", TEXT, re.M | re.S))


def test_what_stands_elsewhere_is_copied():
    assert with_what_stands_elsewhere(TEXT) == TEXT, "python tests/config/composed.py writes it"


def test_every_option_is_in_the_table_of_parts():
    documented, part = {}, None
    for first, option in re.findall(r"^\| (?:`(\w+)`)? ?\| `(\w+)` \|", TEXT.partition("## The parts")[2], re.M):
        part = first or part
        documented.setdefault(part, []).append(option)
    assert {k: sorted(v) for k, v in documented.items()} == {part: choices(f"algorithm/{part}") for part in PARTS}


@pytest.mark.parametrize("overrides", [c for c in COMMANDS if "algorithm=topr" not in c], ids=" ".join)
def test_command_lines_are_valid(overrides):
    load_config(overrides)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_has_equation_source_knobs_and_use(name):
    equation = re.search(r"^    [JL] = ", said(name), re.M) or "gcpo.py), then" in said(name)
    assert equation and re.search(r"arXiv \d{4}\.\d{5}|Ours: in no paper|needs no source", said(name))
    section = TEXT.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert said(name) in section and "**When.**" in section
    assert f"python tools/train.py algorithm={name} " in section


def test_what_is_said_of_an_algorithm_stands_in_one_place():
    """In a file of algorithms/, to which the yaml points; a yaml without one is for an algorithm of another package."""
    assert sorted(f.stem for f in (ROOT / "algorithms").glob("[!_]*.py")) == ALGORITHMS
    for name in ALGORITHMS:
        assert (
            f"# Equation, source and our reading: algorithms/{name}.py.\n"
            in (ROOT / "configs/algorithm" / f"{name}.yaml").read_text()
        )


def test_write_your_own(tmp_path, carry):
    """The documented package, under 60 lines, is installed by pip, found by its entry point, and trains."""
    assert len(EXAMPLE) == 4 and sum(len(x.splitlines()) for x in EXAMPLE.values()) < 60
    source, site = tmp_path / "source", tmp_path / "site"
    for name, content in EXAMPLE.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(content)
    for package in ("my_rl", "my_rl/configs"):
        (source / package / "__init__.py").touch()
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site), str(source)]
    done = run(pip)
    assert done.returncode == 0, done.stderr

    (command,) = [c for c in COMMANDS if "algorithm=topr" in c]
    small = [
        "trainer.steps=2",
        "trainer.prompts_per_step=4",
        "trainer.samples_per_prompt=4",
        "evaluation.every_steps=0",
    ]
    small += ["evaluation.at_start=false", f"prepared={carry}", f"model.path={carry}/init", f"run.folder={tmp_path}"]
    done = run([str(ROOT / "tools" / "train.py"), *command, *small, "run.name=mine"], site)
    assert done.returncode == 0, done.stderr
    kept = OmegaConf.load(tmp_path / "mine" / "config.yaml").algorithm
    assert (kept.name, kept.surrogate.name, kept.surrogate.cap) == ("topr", "tapered", 0.5)
    assert len((tmp_path / "mine" / "metrics.jsonl").read_text().splitlines()) == 2

    code = f"""
import torch
from types import SimpleNamespace
from gcpo_mcore.run.load import load_config
made = load_config({command!r}).algorithm
logp = torch.tensor([[0.0, 3.0], [-3.0, 3.0]], requires_grad=True)
a = torch.tensor([[2.0, 2.0], [-2.0, -2.0]])
rows = SimpleNamespace(old_logp=torch.zeros(2, 2), mask=torch.ones(2, 2), advantage=a)
loss, clipped = made.surrogate.token_loss(logp, rows, made.importance.ratio(logp, rows))
loss.sum().backward()
print(type(made).__name__, made.title, made.reduction.name,
      [round(x, 3) for x in logp.grad.flatten().tolist()], clipped.tolist())
"""
    done = run(["-c", code], site)
    expected = "Algorithm topr constant [-2.0, -2.0, 0.1, 1.0] [[False, False], [False, True]]"
    assert done.stdout.strip() == expected, done.stderr

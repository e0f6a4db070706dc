"""docs/algorithms.md says what is there: the table of presets, the options, the command lines, the example."""

import re
import shlex
import tomllib

import pytest
from composed import BEGIN, DOC, END, PARTS, ROOT, choices, preset_table, run, write_distribution
from omegaconf import OmegaConf

from gcpo_mcore.config.load import load_config

TEXT = DOC.read_text()
COMMANDS = [shlex.split(line, comments=True)[2:] for line in re.findall(r"^python tools/train\.py .*$", TEXT, re.M)]
EXAMPLE = dict(re.findall(r"^`((?:my_rl/|pyproject)[^`]+)`\n\n```\w+\n(.*?)^```", TEXT, re.M | re.S))


def test_table_of_presets():
    assert TEXT.partition(BEGIN)[2].partition(END)[0] == preset_table()


def test_every_option_is_in_the_table_of_parts():
    documented, part = {}, None
    for first, option in re.findall(r"^\| (?:`(\w+)`)? ?\| `(\w+)` \|", TEXT.partition("## The parts")[2], re.M):
        part = first or part
        documented.setdefault(part, []).append(option)
    assert {k: sorted(v) for k, v in documented.items()} == {part: choices(f"algorithm/{part}") for part in PARTS}


@pytest.mark.parametrize("overrides", [c for c in COMMANDS if "algorithm=my_cispo" not in c], ids=" ".join)
def test_command_lines_are_valid(overrides):
    load_config(overrides)


def test_write_your_own(tmp_path):
    assert len(EXAMPLE) == 4 and sum(len(x.splitlines()) for x in EXAMPLE.values()) < 60
    for name, content in EXAMPLE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    for package in ("my_rl", "my_rl/configs"):
        (tmp_path / package / "__init__.py").touch()
    project = tomllib.loads(EXAMPLE["pyproject.toml"])["project"]
    lines = [f"{k} = {v}" for k, v in project["entry-points"]["gcpo_mcore.algorithms"].items()]
    write_distribution(tmp_path, "my_rl", "\n".join(["[gcpo_mcore.algorithms]", *lines]))

    (command,) = [c for c in COMMANDS if "algorithm=my_cispo" in c]
    done = run([str(ROOT / "tools" / "train.py"), *command, "--cfg", "job"], tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    printed = OmegaConf.create(done.stdout).algorithm
    assert (printed.name, printed.surrogate.name, printed.surrogate.cap) == ("my_cispo", "capped", 4.0)

    code = f"""
import torch
from types import SimpleNamespace
from gcpo_mcore.config.load import load_config
made = load_config({command!r}).algorithm
logp = torch.tensor([[0.0, 3.0]], requires_grad=True)
rows = SimpleNamespace(old_logp=torch.zeros(1, 2), mask=torch.ones(1, 2), advantage=torch.tensor([[2.0, 2.0]]))
loss, clipped = made.surrogate.token_loss(logp, rows, made.importance)
loss.sum().backward()
print(type(made).__name__, made.filter.name, logp.grad.tolist(), clipped.tolist())
"""
    done = run(["-c", code], tmp_path)
    assert done.stdout.strip() == "MyCISPO drop_uniform [[-2.0, -8.0]] [[False, True]]", done.stderr

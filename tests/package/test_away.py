"""A user who has the wheel and no checkout: the quick start, a grid, configs and parts of their own."""

import json
from pathlib import Path

import pytest

from tests.launching import ROOT
from tests.package.building import Environment, make_environment

INIT = "model.path=prepared/carry-seed0/init"
SMALL = ["trainer.prompts_per_step=4", "trainer.samples_per_prompt=4", "evaluation.every_steps=2",
         "data.eval.easy.max_rows=8", "data.eval.hard.max_rows=8", "monitor.trackers=[]"]  # fmt: skip
TORCHRUN = ["--standalone", "--nproc-per-node", "2", "-m", "gcpo_mcore.commands.train"]


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Environment:
    """A fresh environment with the wheel."""
    return make_environment(tmp_path_factory.mktemp("away"), wheel)


def succeed(environment: Environment, program: str, *arguments: str) -> str:
    """What the program prints; it has to succeed."""
    done = environment.run(program, *arguments)
    assert done.returncode == 0, f"{program} {arguments}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def home(environment) -> Path:
    """The user's folder, with the data and the untrained model of the quick start in its default place."""
    succeed(environment, "gcpo-prepare", "--skip-starter")
    assert (environment.home / "prepared/carry-seed0/train_hard.parquet").is_file()
    return environment.home


@pytest.fixture(scope="module")
def trained(environment, home) -> Path:
    """The run folder of two steps on two processes, with an export in the background."""
    settings = ["trainer.steps=2", "trainer.checkpoint_every_steps=2", "trainer.hf_every_steps=2"]
    python = ["-m", "torch.distributed.run", *TORCHRUN]
    succeed(environment, "python", *python, INIT, *SMALL, *settings)
    return home / "runs/gcpo-carry-seed0"


EVERY_MODULE = """
import importlib, json, pkgutil, sys
import gcpo_mcore
for module in pkgutil.walk_packages(gcpo_mcore.__path__, "gcpo_mcore."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if error.name != "triton":  # comes with torch for CUDA only
            raise
from gcpo_mcore.base.registry import algorithms, rewards
ours = {name: m.__file__ for name, m in sys.modules.items() if name.partition(".")[0] == "gcpo_mcore"}
bare = [name for name in ("algorithms", "rewards", "configs") if importlib.util.find_spec(name)]
print(json.dumps({"path": sys.path, "ours": ours, "bare": bare, "names": [algorithms.names(), rewards.names()]}))
"""


def test_the_package_is_the_installed_one(environment):
    found = json.loads(succeed(environment, "python", "-c", EVERY_MODULE))
    assert str(ROOT) not in found["path"] and len(found["ours"]) > 100
    for file in found["ours"].values():
        assert Path(file).is_relative_to(environment.folder), file
    assert found["bare"] == []
    for kind, names in zip(("algorithms", "rewards"), found["names"], strict=True):
        assert set(names) >= {f.stem for f in (ROOT / kind).glob("[a-z]*.py")}


def test_training_on_two_processes_exports_in_the_background(trained):
    assert len((trained / "metrics.jsonl").read_text().splitlines()) >= 2
    assert (trained / "hf/model.safetensors").is_file()
    log = (trained / "logs/hf_export.log").read_text()
    assert (trained / "hf_step_000002/model.safetensors").is_file(), log


def test_a_checkpoint_is_exported_and_evaluated(environment, trained):
    shown = succeed(environment, "gcpo-convert", "to-hf", str(trained), "exports/mine")
    assert "largest logit difference" in shown
    beside = "evaluation.beside=[prepared/carry-seed0/init]"
    shown = succeed(environment, "gcpo-evaluate", "model.path=exports/mine", beside, *SMALL)
    assert "exports/mine" in shown and "hard/avg@1 (8)" in shown


def test_doctor_says_whether_it_fits(environment, home):
    shown = succeed(environment, "gcpo-doctor", "plan", "--processes", "2", "--gpu-memory-gib", "80", INIT)
    assert "fits: " in shown


GRID = """\
# One cell, from golden answers that the grid makes.
question: "Does a grid run without the checkout?"
budget: "one cell"
overrides: ["data.train.hard.path=${prepared}/worse.jsonl", "trainer.steps=2"]
variants: {}
sweep: {seed: [0]}
prepare:
  "{prepared}/worse.jsonl": "gcpo-golden degrade {prepared}/eval_hard.jsonl {prepared}/worse.jsonl --truncate 0.5"
processes: 1
"""


def test_a_grid_of_the_user_runs(environment, home):
    """One cell; the file that it needs is made by gcpo-golden before."""
    (home / "mine/ablation").mkdir(parents=True, exist_ok=True)
    (home / "mine/ablation/small.yaml").write_text(GRID)
    command = ["hydra.searchpath=[file://mine]", "experiment=small", INIT, *SMALL]
    shown = succeed(environment, "gcpo-ablate", *command, "dry_run=true")
    assert "seed-0:  gcpo-train " in shown and "hydra.searchpath=[file://mine]" in shown
    shown = succeed(environment, "gcpo-ablate", *command)
    assert "report: runs/ablations/small/report.md" in shown
    report = (home / "runs/ablations/small/report.md").read_text()
    assert "- **command**: gcpo-ablate " in report and "gcpo-mcore 0." in report and "commit" not in report
    assert len((home / "prepared/carry-seed0/worse.jsonl").read_text().splitlines()) == 128
    assert (home / "runs/ablations/small/cells/seed-0/hf/model.safetensors").is_file()


DISTRIBUTION = {
    "pyproject.toml": """\
[project]
name = "elsewhere"
version = "0.1"
[project.entry-points."gcpo_mcore.rewards"]
short = "elsewhere.short:Short"
[project.entry-points."gcpo_mcore.algorithms"]
foreign = "elsewhere.foreign:Foreign"
[tool.setuptools]
packages = ["elsewhere", "elsewhere.configs"]
package-data = {"elsewhere.configs" = ["**/*.yaml"]}
""",
    "elsewhere/__init__.py": "",
    "elsewhere/configs/__init__.py": "",
    "elsewhere/short.py": """\
from gcpo_mcore.base.config import Config
from gcpo_mcore.base.registry import rewards


@rewards.register
class Short(Config):
    max_tokens: int

    def __call__(self, answers):
        return [float(a.response_tokens <= self.max_tokens) for a in answers]
""",
    "elsewhere/foreign.py": """\
from gcpo_mcore.objective import Algorithm


class Foreign(Algorithm):
    "GRPO from elsewhere."
""",
    "elsewhere/configs/algorithm/foreign.yaml": "defaults: [grpo, _self_]\nname: foreign\n",
    "elsewhere/configs/reward/short.yaml": """\
defaults: [exact_match, _self_]
parts:
  short: {weight: 0.5, gate: null, settings: {max_tokens: 64}}
""",
}
EXPERIMENT = """\
# @package _global_
# The user's own: what one of their runs is.
defaults:
  - override /algorithm: foreign
  - override /reward: short
run: {name: own}
trainer: {steps: 2}
"""


def test_parts_of_another_distribution_and_configs_of_the_user(environment, home, tmp_path):
    for name, text in DISTRIBUTION.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    environment.install(tmp_path)
    (home / "mine/experiment").mkdir(parents=True, exist_ok=True)
    (home / "mine/experiment/own.yaml").write_text(EXPERIMENT)
    where = ["hydra.searchpath=[pkg://elsewhere.configs,file://mine]"]
    succeed(environment, "gcpo-train", *where, "experiment=own", INIT, *SMALL)
    lines = [json.loads(line) for line in (home / "runs/own/metrics.jsonl").read_text().splitlines()]
    step = next(line for line in lines if line["step"] == 1 and "reward/mean" in line)
    assert step["reward/mean"] == pytest.approx(0.5), step  # every response is short, none is right
    kept = (home / "runs/own/config.yaml").read_text()
    assert "name: foreign" in kept and "max_tokens: 64" in kept

    unknown = environment.run("gcpo-train", *where, "experiment=owm", "--cfg", "job")
    assert unknown.returncode != 0
    message, known = unknown.stderr.strip().split("; known: ")
    assert message == "error: experiment=owm: unknown choice (nearest: own)"
    assert {"own", *(path.stem for path in (ROOT / "configs/experiment").glob("*.yaml"))} == {*known.split(", ")}
    shown = succeed(environment, "gcpo-train", "--config-dir", "mine", *where, "experiment=own", "--cfg", "job")
    assert "name: foreign" in shown


@pytest.mark.parametrize("program", ["gcpo-ablate", "gcpo-convert", "gcpo-doctor", "gcpo-golden", "gcpo-prepare"])
def test_help_names_what_is_installed(environment, program):
    shown = succeed(environment, program, "--help")
    assert f"    {program} " in shown and "tools/" not in shown

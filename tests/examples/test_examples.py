"""examples/: the packages train, the configurations compose and fit, the commands name what is there."""

import json
import re
import tomllib
from types import SimpleNamespace

import pytest
import torch

from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.extraction import Extraction
from gcpo_mcore.run.load import load_config
from gcpo_mcore.sizing.estimate import estimate_run
from tests.config.composed import run, write_distribution
from tests.docs_commands import problems
from tests.launching import ROOT

EXAMPLES = ROOT / "examples"
PACKAGES = sorted(file.parent for file in EXAMPLES.glob("*/pyproject.toml"))
READMES = sorted(EXAMPLES.rglob("README.md"))


@pytest.fixture(scope="module")
def trained(carry, tmp_path_factory):
    """The run folder of two steps with the own reward, the own algorithm and the own engine together."""
    folder = tmp_path_factory.mktemp("examples")
    for package in PACKAGES:
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        points = [
            f"[{group}]\n" + "".join(f"{name} = {where}\n" for name, where in entries.items())
            for group, entries in project["entry-points"].items()
        ]
        write_distribution(folder, project["name"].replace("-", "_"), "\n".join(points))
    done = run(
        [
            str(ROOT / "tools/train.py"),
            "hydra.searchpath=[pkg://my_rewards.configs,pkg://my_algorithm.configs,pkg://my_engine.configs]",
            "reward=close_number", "algorithm=signed", "rollout=plain", f"prepared={carry}", f"model.path={carry}/init",
            f"run.folder={folder}", "run.name=r", "trainer.steps=2", "trainer.prompts_per_step=4",
            "trainer.samples_per_prompt=2", "evaluation.every_steps=0", "evaluation.at_start=false",
            "monitor.trackers=[]", "data.golden_checked_rows=8",
        ],
        folder, *PACKAGES,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "r"


def test_own_reward_algorithm_and_engine_train(trained):
    first, second = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert first["update/count"] == second["update/count"] == 1
    for line in (first, second):  # the second step samples from weights that the engine was handed after an update
        assert line["mismatch/logp_abs_diff_max"] < 1e-4
    samples = [json.loads(line) for line in (trained / "rollouts/step_000001.jsonl").read_text().splitlines()]
    assert samples and all("close_number" in s["reward_parts"] for s in samples if not s["is_golden"])


def test_the_own_reward_scores_what_is_near(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "own_reward"))
    from my_rewards.close_number import CloseNumber

    settings = {"reach": 10.0, "extraction": {"name": "after_last", "marker": ":"}}
    reward = CloseNumber.model_validate(settings)
    assert isinstance(reward.extraction, Extraction)
    answers = [Answer("39+66?", text, "105") for text in (":105", ":100", ":94", ":word", "105", ":205")]
    assert reward(answers) == [1.0, 0.5, 0.0, 0.0, 0.0, 0.0]


def test_the_own_advantage_is_a_sign(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "own_algorithm"))
    from my_algorithm.sign import Sign

    part = Sign.model_validate({"name": "sign"})
    table = SimpleNamespace(
        group=torch.tensor([0, 0, 0, 1, 1, 2, 2]),
        groups=3,
        is_beside=torch.tensor([False] * 6 + [True]),
    )
    reward = torch.tensor([0.1, 0.1, 1.1, 0.7, 0.7, 0.2, 9.0])
    assert part.of_rows(reward, table)[:6].tolist() == [-1.0, -1.0, 1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("name, gpus", [("gsm8k_one_gpu", 1), ("gsm8k_eight_gpus", 8)])
def test_gsm8k_composes_and_fits_into_80_gb(name, gpus):
    config = load_config([f"hydra.searchpath=[file://{EXAMPLES}/gsm8k/configs]", f"experiment={name}"])
    assert (config.reward.accuracy, config.algorithm.name) == ("math_verify", "gcpo")
    assert config.trainer.prompts_per_step * config.trainer.samples_per_prompt % gpus == 0
    assert estimate_run(config, gpus).fits(78.0)


@pytest.mark.parametrize("readme", READMES, ids=lambda file: file.parent.name)
def test_commands_and_links_lead_somewhere(readme):
    assert problems(readme) == []
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", readme.read_text()):
        assert (readme.parent / target).exists(), target


def test_every_example_is_listed():
    listed = re.findall(r"\]\((\w+)/README\.md\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == sorted(file.parent.name for file in READMES if file.parent != EXAMPLES)

"""What a run is told in secret stands in no file of it and in no message."""

import json
import re

import pytest

from gcpo_mcore.ablation.grid import read_grid
from gcpo_mcore.ablation.runner import run_grid
from gcpo_mcore.base.config import Config, Free, Secret, hidden
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.run.config import RunConfig
from gcpo_mcore.run.facts import facts
from gcpo_mcore.run.load import load_config, shown
from gcpo_mcore.run.plan import make_plan
from gcpo_mcore.run.report import Report
from tests.config.composed import run, write_distribution

SECRETS = ["sesame-of-the-hub", "sesame-of-the-server", "sesame-of-the-router"]
OVERRIDES = [
    "rollout=sglang", f"+rollout.environment.HF_TOKEN={SECRETS[0]}", f"+rollout.arguments.api-key={SECRETS[1]}",
    "+rollout.arguments.max-running-requests=64", "rollout.start_servers=0",
    f"rollout.servers=['http://me:{SECRETS[2]}@localhost:1/x']",
]  # fmt: skip


def assert_told_nothing(text: str) -> None:
    assert [secret for secret in SECRETS if secret in text] == []


def test_the_run_folder_has_the_names_alone(carry, tmp_path):
    """config.yaml, the lines in which ranks compare their plans, and a continuation that has another key."""
    own = [f"prepared={carry}", f"model.path={carry}/init", f"run.folder={tmp_path}", "run.name=r"]
    plan = make_plan(load_config([*own, *OVERRIDES]))
    report = Report(plan, 0)
    report.start(0, {})
    report.close()
    written = "".join(file.read_text() for file in (tmp_path / "r").rglob("*.yaml"))
    assert_told_nothing(written + json.dumps(facts(plan)))
    assert (
        "HF_TOKEN: '***'" in written and "max-running-requests: 64" in written and "http://***@localhost:1/x" in written
    )
    other = make_plan(load_config([*own, *OVERRIDES, f"rollout.environment.HF_TOKEN={SECRETS[1]}"]))
    keys = [key for key, value in facts(plan).items() if facts(other)[key] != value]
    assert keys == ["rollout.environment.HF_TOKEN"]
    config: RunConfig = other.config
    plan.folder.check_same_run(other.written, set(config.free_keys()), set(config.mappings()))


@pytest.mark.parametrize("wrong", ["rollout.environment.HF_TOKEN=[{}]", "rollout.arguments.api-key=[{}]"])
def test_a_mistake_in_one_is_told_without_it(wrong):
    key = wrong.partition("=")[0]
    with pytest.raises(UserError, match=re.escape(key)) as caught:
        load_config(["rollout=sglang", "+" + wrong.format(SECRETS[0])])
    assert_told_nothing(str(caught.value))


def test_a_grid_writes_none(tmp_path):
    class Launcher:
        def start(self, name, words, log):
            raise KeyboardInterrupt(" ".join(words))

        def stop(self):
            pass  # nothing was started

    grid = read_grid(["seed=0,1", "model.path=here", *OVERRIDES])
    assert_told_nothing(grid.question)
    grid.prepare.clear()
    with pytest.raises((UserError, KeyboardInterrupt)):
        run_grid(grid, tmp_path, 1, Launcher(), lambda states: None)
    assert_told_nothing((tmp_path / "grid.json").read_text())
    assert shown(["rollout.environment={A: b}", "~rollout.arguments.x=1", "seed=1"])[2] == "seed=1"


def test_hidden_is_what_is_marked_and_a_password_in_an_address():
    class Judge(Config):
        key: Secret[str]
        table: Free[Secret[dict[str, str | int]]]
        url: str

    made = Judge(key="a", table={"x": "b", "y": 1}, url="https://u:p@h/a@b")
    assert hidden(made.plain(), set(made.secret_keys())) == {
        "key": "***",
        "table": {"x": "***", "y": 1},
        "url": "https://***@h/a@b",
    }
    assert list(made.free_keys()) == ["table"]


REWARD = """
from gcpo_mcore.base.config import Config, Secret
from gcpo_mcore.base.registry import rewards

@rewards.register
class Judge(Config):
    key: Secret[str]

    def __call__(self, answers):
        return [0.0 for _ in answers]
"""
ASK = """
from gcpo_mcore.run.load import load_config
from gcpo_mcore.base.config import hidden
config = load_config(["+reward.parts.judge={weight: 0.0, gate: null, settings: {key: sesame}}"])
print(hidden(config.plain(), set(config.secret_keys()))["reward"]["parts"]["judge"]["settings"])
"""


def test_a_reward_of_another_distribution_marks_its_own(tmp_path):
    write_distribution(tmp_path, "judge", "[gcpo_mcore.rewards]\njudge = judge:Judge\n")
    (tmp_path / "judge.py").write_text(REWARD)
    done = run(["-c", ASK], tmp_path)
    assert done.stdout == "{'key': '***'}\n", done.stderr

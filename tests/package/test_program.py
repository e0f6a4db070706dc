"""Messages and help pages name the command that the user has; folders of configs are found or named."""

import sys
from pathlib import Path

import pytest

from gcpo_mcore.base import program
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.places import CONFIGS
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.search_path import config_folders
from tests.launching import ROOT

PAGE = "torchrun --nproc-per-node N tools/train.py a=b\npython tools/convert.py x\nas tools/train.py does"


@pytest.mark.parametrize("started", ["tools/train.py", str(ROOT / "tools/convert.py")])
def test_a_tool_speaks_of_tools(monkeypatch, started):
    monkeypatch.setattr(sys, "argv", [started, "x"])
    assert program.command("prepare") == "python tools/prepare.py" and program.help_page(PAGE) == PAGE
    assert program.name() == Path(started).name


@pytest.mark.parametrize("started", ["/env/bin/gcpo-train", "/env/lib/gcpo_mcore/commands/train.py"])
def test_an_installed_command_speaks_of_what_is_installed(monkeypatch, started):
    monkeypatch.setattr(sys, "argv", [started, "x"])
    assert program.command("prepare") == "gcpo-prepare"
    assert program.help_page(PAGE) == (
        "torchrun --nproc-per-node N -m gcpo_mcore.commands.train a=b\ngcpo-convert x\nas gcpo-train does"
    )


def test_folders_of_the_search_path(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    given = ["seed=1", "hydra.searchpath=[file://mine,pkg://gcpo_mcore.configs.shapes]"]
    assert config_folders(given) == [CONFIGS, Path("mine"), CONFIGS / "shapes"]
    assert config_folders(["seed=1"]) == [CONFIGS]


@pytest.mark.parametrize(
    "place, wrong",
    [("file://nowhere", "no such folder"), ("pkg://no.such.thing", "no such package"), ("nowhere", "no such folder")],
)
def test_a_folder_that_is_not_there_is_named(place, wrong):
    with pytest.raises(UserError, match=f"^hydra.searchpath: {place}: there is {wrong}$"):
        load_config([f"hydra.searchpath=[{place}]"])


def test_mistakes_know_the_users_own_choices_and_keys(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/own.yaml").write_text("# @package _global_\ntrainer: {steps: 2}\n")
    where = f"hydra.searchpath=[file://{tmp_path}]"
    assert load_config([where, "experiment=own"]).trainer.steps == 2
    with pytest.raises(UserError, match=r"experiment=owm: unknown choice \(nearest: own\); known: .*, own$"):
        load_config([where, "experiment=owm"])
    with pytest.raises(UserError, match=r"unknown key trainer.step \(nearest: trainer.steps\)"):
        load_config([where, "experiment=own", "trainer.step=3"])

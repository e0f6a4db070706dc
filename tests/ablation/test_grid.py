"""Which cells a command line makes; every shipped grid is one."""

import pytest
from pydantic import ValidationError

from gcpo_mcore.ablation.grid import GridConfig, read_grid
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.places import CONFIGS
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.search_path import known_choices


def test_sweeps_are_multiplied_out():
    grid = read_grid(
        ["algorithm=gcpo", "algorithm/golden=all_wrong,off", "algorithm/kl=off,k3", "seed=0,1,2", "trainer.steps=3"]
    )
    assert len(grid.cells) == 12
    cell = grid.cells[4]
    assert cell.factors == {"algorithm/golden": "all_wrong", "algorithm/kl": "k3"} and cell.seed == 1
    assert cell.name == "golden-all_wrong_kl-k3_seed-1"
    config = load_config(cell.overrides)
    assert (config.seed, config.algorithm.kl.name, config.trainer.steps) == (1, "loss", 3)


@pytest.mark.parametrize("name", known_choices("ablation", [CONFIGS]))
def test_every_shipped_grid_is_valid(name):
    grid = read_grid([f"experiment={name}"])
    assert len({cell.name for cell in grid.cells}) == len(grid.cells) > 1
    assert grid.name == name and grid.question.endswith("?")


def test_variants_of_several_factors_are_multiplied_out():
    grid = read_grid(["experiment=golden_quality", "seed=0"])
    assert len(grid.cells) == 10
    cell = next(c for c in grid.cells if c.factors == {"variant": "supervised", "golden": "wrong_steps"})
    assert cell.name == "supervised_wrong_steps_seed-0" and cell.config.algorithm.name == "sft"
    assert cell.config.data.train["hard"].path.endswith("/train_hard_wrong_steps.jsonl")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"processes": {"a": 1}}, "processes names \\['a'\\], the first variants are \\['a', 'b'\\]"),
        ({"sweep": {"seed": [0], "size": [1]}}, "size is a factor of variants and of sweep"),
    ],
)
def test_a_grid_that_contradicts_itself_is_refused(changes, message):
    good = {"question": "?", "budget": "", "overrides": [], "prepare": {}, "sweep": {"seed": [0]}}
    good |= {"variants": {"size": {"a": [], "b": []}}, "processes": {"a": 1, "b": 2}}
    assert GridConfig.model_validate(good).processes == {"a": 1, "b": 2}
    with pytest.raises(ValidationError, match=message):
        GridConfig.model_validate(good | changes)


def test_the_command_line_changes_a_shipped_grid():
    grid = read_grid(["experiment=gcpo_ablation", "seed=7,8", "algorithm/kl=k3", "trainer.steps=5"])
    assert len(grid.cells) == 8
    assert {cell.seed for cell in grid.cells} == {7, 8}
    assert all("algorithm/kl" not in cell.factors for cell in grid.cells)
    assert all(load_config(cell.overrides).algorithm.kl.name == "loss" for cell in grid.cells)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["experiment=gcpo_ablaton"], "experiment=gcpo_ablaton: unknown \\(nearest: gcpo_ablation\\)"),
        (["algorithm=gcpo,gcppo"], "cell algorithm=gcppo: algorithm=gcppo: unknown choice \\(nearest: gcpo\\)"),
        (["algorithm=gcpo,conspo", "algorithm/importance=token,none"], "cell .*conspo.*token.*: algorithm.surrogate"),
        (["seed=0,0"], "two cells are called seed-0"),
        (["seed=[0"], "cannot read"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_anything_runs(arguments, message):
    with pytest.raises(UserError, match=message):
        read_grid(arguments)

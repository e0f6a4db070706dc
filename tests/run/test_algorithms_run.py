"""Every preset, and every combination of GCPO's three switches, trains end to end; a switch moves its part alone."""

import itertools
import json
import math
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.launching import ROOT, run

PRESETS = sorted(f.stem for f in (ROOT / "configs" / "algorithm").glob("*.yaml"))
SWITCHES = {"golden": ("all_wrong", "off"), "importance": ("sequence", "token"), "kl": ("off", "k3", "k1_reward")}
COMBINATIONS = [dict(zip(SWITCHES, choice, strict=True)) for choice in itertools.product(*SWITCHES.values())]
SMALL = [
    "trainer.steps=2", "trainer.prompts_per_step=6", "trainer.samples_per_prompt=4", "trainer.updates_per_step=2",
    "trainer.sequences_per_microbatch=5", "evaluation.every_steps=0", "evaluation.at_start=false",
    "monitor.trackers=[]", "data.train.easy.max_rows=200", "data.train.hard.max_rows=200",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(carry, tmp_path_factory) -> dict[str, Path]:
    """Run folders of all presets and combinations by name; one process each."""
    folder = tmp_path_factory.mktemp("runs")
    commands = {name: [f"algorithm={name}"] for name in PRESETS}
    for c in COMBINATIONS:
        commands["+".join(c.values())] = ["algorithm=gcpo", *(f"algorithm/{part}={x}" for part, x in c.items())]
    settings = [f"prepared={carry}", f"model.path={carry}/init", f"run.folder={folder}"]
    for name, command in commands.items():
        run("tools/train.py", *command, *settings, f"run.name={name}", *SMALL)
    return {name: folder / name for name in commands}


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains(name, runs):
    lines = metrics(runs[name])
    assert [line["step"] for line in lines] == [1, 2]
    for line in lines:
        trained = line["update/count"] > 0
        assert trained or name == "dapo"  # the untrained model is always wrong: DAPO finds no group with contrast
        if trained:
            assert math.isfinite(line["actor/loss"]) and line["actor/update_skipped"] == 0
    # Without right samples the others have nothing to learn from; a golden answer or a KL gives a gradient.
    if name in ("gcpo", "gcpo_conspo", "luffy", "sft", "gcpo_reach", "chord", "hpt", "srft", "dyme", "guided_gcpo"):
        assert all(line["actor/grad_norm"] > 1e-3 for line in lines)


@pytest.mark.parametrize("combination", COMBINATIONS, ids="+".join)
def test_every_combination_moves_its_parts_alone(combination, runs):
    folder = runs["+".join(combination.values())]
    kept = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    plain = OmegaConf.to_container(OmegaConf.load(runs["gcpo"] / "config.yaml"))
    for part, option in combination.items():
        expected = OmegaConf.load(ROOT / "configs" / "algorithm" / part / f"{option}.yaml")
        assert kept["algorithm"].pop(part) == expected
        plain["algorithm"].pop(part)
    kept["run"].pop("name"), plain["run"].pop("name")
    assert kept == plain
    lines = metrics(folder)
    injected = sum(line["groups/golden_injected"] for line in lines)
    assert (injected > 0) == (combination["golden"] == "all_wrong")
    has_moved = combination["golden"] == "all_wrong"  # without a golden answer the untrained model learns nothing
    assert (lines[1]["actor/kl_ref_loss"] > 1e-8) == (has_moved and combination["kl"] == "k3")

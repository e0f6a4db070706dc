"""The reward's configuration: composition, gates, and what is refused."""

import copy
import pickle
from pathlib import Path

import pytest
import yaml

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.rewarding.composition import compose
from gcpo_mcore.rewarding.config import RewardConfig
from gcpo_mcore.run.load import load_config

CONFIGS = Path(__file__).parents[2] / "configs" / "reward"


def shipped(name):
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())


def changed(path, value):
    """math_verify.yaml with one value set."""
    tree = copy.deepcopy(shipped("math_verify"))
    *way, last = path.split(".")
    place = tree
    for key in way:
        place = place[key]
    place[last] = value
    return tree


@pytest.mark.parametrize("name", [p.stem for p in CONFIGS.glob("*.yaml")])
def test_shipped_configs_are_valid_and_picklable(name):
    config = load_config([f"reward={name}"]).reward
    assert pickle.loads(pickle.dumps(config)) == config


def test_the_shipped_format_wants_one_box():
    form = RewardConfig.model_validate(shipped("math_verify")).build()["format"]
    from gcpo_mcore.rewarding.answer import Answer

    texts = ["so\n\\boxed{4}.\n", "4", r"\boxed{3} \boxed{4}"]
    assert form([Answer("q", t, "4") for t in texts]) == [1.0, 0.0, 0.0]


def test_reward_is_the_weighted_sum():
    config = RewardConfig.model_validate(changed("parts.format.weight", 0.5))
    assert compose(config, {"math_verify": 1.0, "format": 1.0}) == (1.5, {"math_verify": 1.0, "format": 1.0}, True)
    assert compose(config, {"math_verify": 1.0, "format": 0.0}) == (1.0, {"math_verify": 1.0, "format": 0.0}, True)


@pytest.mark.parametrize(("bonus", "expected"), [(0.5, 1.0), (-3.0, -1.0), (-0.5, 0.5)])
def test_the_sum_is_clipped_and_the_parts_are_not(bonus, expected):
    tree = changed("clip", {"lowest": -1.0, "highest": 1.0})
    tree["parts"]["format"]["weight"] = bonus
    config = RewardConfig.model_validate(tree)
    parts = {"math_verify": 1.0, "format": 1.0}
    assert compose(config, parts) == (expected, parts, True)


def test_a_deadline_shorter_than_the_parts_own_time_is_refused():
    tree = load_config(["reward=remote"]).reward.model_dump(mode="json")
    with pytest.raises(UserError, match=r"reward\.wall_deadline_s=16\.5: by their settings the parts may take 16\.5 s"):
        RewardConfig.model_validate(tree | {"wall_deadline_s": 16.5})
    RewardConfig.model_validate(tree | {"wall_deadline_s": 16.6})


def test_a_closed_gate_silences_a_part():
    config = RewardConfig.model_validate(changed("parts.format.weight", 0.5))
    assert compose(config, {"math_verify": 0.0, "format": 1.0}) == (0.0, {"math_verify": 0.0, "format": 0.0}, False)


def test_a_gated_accuracy_part_is_not_accurate_behind_a_closed_gate():
    tree = changed("parts.math_verify.gate", "format")
    tree["parts"]["format"]["gate"] = None
    config = RewardConfig.model_validate(tree)
    assert compose(config, {"math_verify": 1.0, "format": 0.0}) == (0.0, {"math_verify": 0.0, "format": 0.0}, False)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("accuracy", "math_verifi", r"reward\.accuracy: no part 'math_verifi' \(nearest: math_verify\)"),
        ("parts.format.gate", "maths_verify", r"parts\.format\.gate: no part 'maths_verify' \(nearest: math_verify\)"),
        ("clip", {"lowest": 1, "highest": -1}, r"reward\.clip: lowest 1 is above highest -1"),
        ("parts.format.gate", "format", "cannot be its own gate"),
        (
            "parts.exact_macth",
            {"weight": 1, "gate": None, "settings": {}},
            r"unknown reward 'exact_macth' \(nearest: exact_match\)",
        ),
        (
            "parts.math_verify.settings.max_char",
            5,
            r"reward\.parts\.math_verify\.settings\.max_char: .*\(nearest: max_chars\)",
        ),
        ("parts.math_verify.settings.max_chars", 0, r"settings\.max_chars: .*greater than 0"),
        (
            "parts.math_verify.settings.extraction",
            {"name": "boxd"},
            r"settings: unknown extraction 'boxd' \(nearest: boxed\)",
        ),
        ("parts.format.settings.pattern", "(", r"settings\.pattern: .*not a regular expression"),
    ],
)
def test_mistakes_are_named(path, value, message):
    with pytest.raises(UserError, match=message):
        RewardConfig.model_validate(changed(path, value))

"""Every file in configs/ composes and passes the schema; one switch moves one part and nothing else."""

import functools

import pytest
from omegaconf import OmegaConf

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm
from gcpo_mcore.run.load import CONFIGS, load_config, parse
from tests.config.composed import ALGORITHMS, PARTS, ROOT, choices, composed, resolved, run, write_distribution

TOP_GROUPS = sorted(
    d.name for d in CONFIGS.iterdir() if d.is_dir() and d.name not in ("__pycache__", "algorithm", "ablation")
)


def test_large_models_bring_settings_for_gpus_that_everything_after_them_may_change():
    def chosen(*overrides):
        config = load_config(list(overrides))
        return config.trainer.tokens_per_microbatch, config.parallel.distributed_optimizer, config.parallel.overlap

    large = [f"model={name}" for name in choices("model") if name != "starter"]
    assert {chosen(one) for one in large} == {(16384, True, True)} and len(large) == 5
    assert chosen() == chosen(large[0], "model/preset=none") == (None, False, False)
    assert chosen(large[0], "parallel.overlap=false", "trainer.tokens_per_microbatch=99") == (99, True, False)
    assert chosen("experiment=lora_7b_one_gpu") == (8192, True, True)


# A full grid of presets x options is 900 command lines; what an option is does not depend on the preset, so each is
# switched in three that differ in everything.
SWITCHED = ["gcpo", "rloo", "conspo"]
# Options that make no sense beside a preset's other parts, and the words that say why.
SENSELESS = {
    "groups of one": {(n, "golden", "only") for n in SWITCHED},
    "has no importance ratio": {
        ("gcpo", "surrogate", "policy_gradient"),
        *(("rloo", "importance", i) for i in choices("algorithm/importance") if i != "none"),
    },
    "compares the sequences of a group": {
        *((n, "surrogate", s) for n in ("gcpo", "rloo") for s in ("conspo", "disco", "dpo")),
        *(
            ("conspo", part, option)
            for part, fitting in {
                "advantage": ["none"], "importance": ["none"], "mismatch": ["off"], "reduction": ["group_mean"],
            }.items()
            for option in choices(f"algorithm/{part}")
            if option not in fitting
        ),
    },
    "adds to a reward": {("conspo", "kl", "k1_reward")},
    "no ratio; use ratio=old": {(n, "golden", "always_luffy") for n in ("rloo", "conspo")},
    "weighs no row": {("conspo", "golden", "all_wrong_alone"), ("conspo", "golden", "beside_hpt")},
    "clips every token's ratio": {("gcpo", "surrogate", "gmpo")},
    "estimator k1 as a loss": {(n, "kl", "k1") for n in SWITCHED},
}  # fmt: skip
REASONS = {case: reason for reason, cases in SENSELESS.items() for case in cases}


def switches():
    for name in SWITCHED:
        for part in PARTS:
            for option in choices(f"algorithm/{part}"):
                yield name, part, option


@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm=gcpo", "algorithm/golden=only"],
        ["algorithm=sft", "algorithm/filter=drop_uniform"],
        ["algorithm=sft", "algorithm/advantage=leave_one_out"],
    ],
)
def test_groups_of_one_are_refused(overrides):
    with pytest.raises(UserError, match="golden=only makes groups of one, which have no contrast"):
        load_config(overrides)


@pytest.mark.parametrize("group, choice", [(g, c) for g in [*TOP_GROUPS, "data/curriculum"] for c in choices(g)])
def test_every_choice_is_a_valid_config(group, choice):
    config = load_config([f"{group}={choice}"])
    if group == "rollout":
        assert config.rollout.engine == choice.removesuffix("_cpu")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_is_a_valid_config(name):
    made = load_config([f"algorithm={name}"]).algorithm
    assert made.name == made.title == name and type(made) is Algorithm
    assert name in algorithms.names()


@functools.cache
def plain_config(name):
    return resolved(composed(f"algorithm={name}"))


@pytest.mark.parametrize("name, part, option", list(switches()))
def test_one_switch_moves_one_part(name, part, option):
    plain = plain_config(name)
    switched_config = composed(f"algorithm={name}", f"algorithm/{part}={option}")
    switched = resolved(switched_config)
    # the part is its file; whatever it says elsewhere (${...}) is resolved in the whole
    own = OmegaConf.load(CONFIGS / "algorithm" / part / f"{option}.yaml")
    whole = OmegaConf.merge(switched_config, {"algorithm": {part: own}})
    assert switched["algorithm"].pop(part) == {k: whole.algorithm[part][k] for k in own}
    assert switched == plain | {"algorithm": {k: v for k, v in plain["algorithm"].items() if k != part}}
    if (name, part, option) in REASONS:
        with pytest.raises(UserError, match=REASONS[name, part, option]):
            parse(switched_config)
    else:
        parse(switched_config)


def test_yaml_files_say_what_they_are():
    for file in CONFIGS.rglob("*.yaml"):
        assert file.read_text().startswith("# "), file


def test_cfg_job_prints_the_composed_config():
    done = run([str(ROOT / "tools" / "train.py"), "--cfg", "job", "algorithm=gcpo", "algorithm/kl=k3", "seed=5"])
    assert done.returncode == 0, done.stderr
    printed = OmegaConf.create(done.stdout)
    assert (printed.algorithm.name, printed.algorithm.kl.estimator, printed.seed) == ("gcpo", "k3", 5)


def test_an_algorithm_of_another_distribution_is_found(tmp_path):
    write_distribution(tmp_path, "elsewhere", "[gcpo_mcore.algorithms]\nforeign = elsewhere:Foreign\n")
    (tmp_path / "elsewhere.py").write_text(
        "from gcpo_mcore.objective import Algorithm\nclass Foreign(Algorithm):\n    'From elsewhere.'\n"
    )
    code = (
        "from gcpo_mcore.base.registry import algorithms\n"
        "from gcpo_mcore.run.load import load_config\n"
        "print(algorithms.names())\n"
        "print(load_config(['algorithm=gcpo', 'algorithm.name=foreign']).algorithm.title)\n"
    )
    done = run(["-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    names, title = done.stdout.splitlines()
    assert names == str(sorted([*algorithms.names(), "foreign"])) and title == "foreign (elsewhere.Foreign)"

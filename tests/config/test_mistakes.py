"""A mistake on the command line is one line that names the key and the nearest known one."""

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.run.load import load_config
from tests.config.composed import ROOT, run

MISTAKES = {
    "unknown key": (["trainer.stesp=3"], "unknown key trainer.stesp (nearest: trainer.steps)"),
    "unknown key of a part": (
        ["algorithm=grpo", "algorithm.kl.coeficient=1"],
        "unknown key algorithm.kl.coeficient (nearest: algorithm.kl.coefficient)",
    ),
    "an entry that may be added": (
        ["data.chat_template_kwargs.enable_thinking=false"],
        "data.chat_template_kwargs.enable_thinking: there is no such entry yet; "
        "++data.chat_template_kwargs.enable_thinking=... adds it",
    ),
    "new key": (["+new=1"], "unknown key new"),
    "new key near a known one": (["+sead=1"], "unknown key sead (nearest: seed)"),
    "new key in a part": (
        ["+algorithm.importance.clip_hihg=1"],
        "unknown key algorithm.importance.clip_hihg (nearest: algorithm.importance.clip_high)",
    ),
    "unknown group": (["algorithm/goldn=off"], "unknown key algorithm/goldn (nearest: algorithm/golden)"),
    "unknown choice": (["algorithm=gcppo"], "algorithm=gcppo: unknown choice (nearest: gcpo); known: "),
    "unknown choice in a list": (
        ["benchmark=[gsm8k,mth500]"],
        "benchmark=mth500: unknown choice (nearest: math500); known: aime24, ",
    ),
    "unknown key of a choice in a list": (
        ["benchmark=[gsm8k,math500]", "benchmark.gsm8k.max_problem=5"],
        "unknown key benchmark.gsm8k.max_problem (nearest: benchmark.gsm8k.max_problems)",
    ),
    "unknown choice of a part": (
        ["algorithm/golden=all_wrnog"],
        "algorithm/golden=all_wrnog: unknown choice (nearest: all_wrong); known: all_wrong, all_wrong_alone, always, ",
    ),
    "unknown option": (["algorithm.golden.name=alwys"], "unknown golden 'alwys' (nearest: always); known: "),
    "unknown curriculum": (
        ["data/curriculum=easyest_first"],
        "data/curriculum=easyest_first: unknown choice (nearest: easiest_first); known: by_pass_rate, ",
    ),
    "unknown curriculum by name": (["data.curriculum.name=drop"], "unknown curriculum 'drop'"),
    "curriculum with a dot": (["data.curriculum=none"], "data.curriculum=none: a part is chosen with a slash: data/"),
    "empty band": (
        ["data/curriculum=by_pass_rate", "data.curriculum.low=0.95"],
        "data.curriculum.low=0.95 is above data.curriculum.high=0.9",
    ),
    "unknown transport": (
        ["rollout=sglang", "rollout.transport=tenser"],
        "unknown transport 'tenser' (nearest: tensor); known: disk, distributed, tensor",
    ),
    "unknown extraction": (
        ["reward.parts.exact_match.settings.extraction.name=box"],
        "reward.parts.exact_match.settings: unknown extraction 'box' (nearest: boxed); known: after_last, ",
    ),
    "extraction without its name": (
        ["reward.parts.exact_match.settings.extraction=boxed"],
        "reward.parts.exact_match.settings: extraction=boxed: write {name: ...}",
    ),
    "unknown engine": (
        ["rollout.engine=embeded"],
        "rollout.engine=embeded: unknown engine 'embeded' (nearest: embedded); known: ",
    ),
    "wrong value": (["algorithm.golden.slot=frst"], "algorithm.golden.slot=frst: input should be 'random', "),
    "wrong type": (["trainer.steps=abc"], "trainer.steps=abc: input should be a valid integer"),
    "fraction": (["trainer.prompts_per_step=1.5"], "trainer.prompts_per_step=1.5: input should be a valid integer"),
    "null": (["trainer.steps=null"], "trainer.steps=None: input should be a valid integer"),
    "out of range": (["algorithm.importance.clip_low=-1"], "algorithm.importance.clip_low=-1: input should be greater"),
    "too small": (["trainer.steps=0"], "trainer.steps=0: input should be greater than 0"),
    "left out": (["~algorithm.kl"], "algorithm.kl: field required"),
    "group of one": (
        ["trainer.samples_per_prompt=1"],
        "trainer.samples_per_prompt=1 with algorithm.advantage=group and algorithm.surrogate=clipped: ",
    ),
    "uneven updates": (
        ["trainer.updates_per_step=3"],
        "trainer.updates_per_step=3 does not divide trainer.prompts_per_step=32",
    ),
    "exports without checkpoints": (["trainer.hf_every_steps=30"], "trainer.hf_every_steps=30 is no multiple of "),
    "checkpoints kept that are not made": (
        ["trainer.keep_every_steps=30"],
        "trainer.keep_every_steps=30 is no multiple of trainer.checkpoint_every_steps=20",
    ),
    "greedy training": (["rollout.sampling.temperature=0"], "rollout.sampling.temperature=0: greedy"),
    "rising lr": (["optimizer.final_lr_fraction=2"], "optimizer.final_lr_fraction=2"),
    "useless KL": (["algorithm/kl=k1"], "algorithm.kl: estimator k1 as a loss has an expected gradient of zero"),
    "bad interpolation": (["seed=${sead}"], "config: Interpolation key 'sead' not found"),
    "a run below another folder": (["run.name=../x"], "run.name=../x: it is one folder's name, without '/'; "),
    "a run elsewhere": (["run.name=/tmp/x"], "run.name=/tmp/x: it is one folder's name, without '/'; run.folder is"),
    "a run in a run": (["run.name=a/b"], "run.name=a/b: it is one folder's name, without '/'"),
    "a run above": (["run.name=.."], "run.name='..': it has to name a folder below run.folder"),
    "no name": (["run.name="], "run.name='': it has to name a folder below run.folder"),
    "blank name": (["run.name=' '"], "run.name=' ': it has to name a folder below run.folder"),
    "name with a tab": (["run.name='a\tb'"], r"run.name='a\tb': it has characters that cannot be printed"),
    "name in another encoding": (["run.name=a\udc80"], r"run.name='a\udc80': it has characters that cannot be pr"),
    "long name": (["run.name=" + "x" * 256], f"run.name={'x' * 40}...: 256 bytes, a folder's name has at most 255"),
    "a number for a text": (
        ["run.folder=2026"],
        "run.folder=2026: input should be a valid string; in quotes it is one: \"run.folder='2026'\"",
    ),
    "bad grammar": (["algorithm=[bad"], "command line: "),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_one_line_names_key_and_nearest(case):
    overrides, expected = MISTAKES[case]
    with pytest.raises(UserError) as caught:
        load_config(overrides)
    message = str(caught.value)
    assert message.startswith(expected)
    assert "\n" not in message


@pytest.mark.parametrize(
    "name",
    ["123", "007", "20261126_1", "1e-6", "-1.50", "true", "nan", "step_size_ablation", "step_000020", "é 1", "lr=1:2"],
)
def test_a_run_has_the_name_that_was_typed(name):
    assert load_config([f"run.name={name}"]).run.name == name


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seed: 1\nseed: 2\n", "found duplicate key seed in "),
        ("data:\n  name: a\n  name: a\n", "found duplicate key name in "),
        ("seed: [1\n", "expected ',' or ']'"),
    ],
)
def test_a_yaml_file_with_a_mistake_is_one_line(tmp_path, text, complaint):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\n" + text)
    done = run([str(ROOT / "tools/train.py"), "--config-dir", str(tmp_path), "experiment=mine"])
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: config: while ") and f"{tmp_path}/experiment/mine" in line
    assert complaint in line


def test_a_part_chosen_with_a_dot_is_told_the_slash():
    with pytest.raises(UserError, match=r"^algorithm\.kl=k3: .*algorithm/kl=k3$"):
        load_config(["algorithm.kl=k3"])


def test_what_contradicts_only_with_sampling_is_fine_without():
    config = load_config(["algorithm=sft", "trainer.samples_per_prompt=1", "rollout.sampling.temperature=0"])
    assert config.samples_per_prompt == 0
    assert load_config(["trainer.samples_per_prompt=1", "algorithm/advantage=none"]).samples_per_prompt == 1

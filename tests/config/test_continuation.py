"""What a continuation may change is marked on the keys, of whatever the config chose; all else makes another run."""

import pytest
from pydantic import create_model

from gcpo_mcore.base.config import Config, Free
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.run.folder import RunFolder
from gcpo_mcore.run.load import load_config
from tests.config.composed import ROOT, run, write_distribution

SERVERS = ["rollout=sglang", "rollout.start_servers=0", 'rollout.servers=["http://localhost:30000"]']
REMOTE = ["reward=remote"]
FILES = ["data=files", "model.path=x", "data.train.train.path=x.jsonl", "data.eval.test.path=x.jsonl"]
FREE = {
    "trainer.steps=7": [],
    "trainer.stop_at_step=3": [],
    "trainer.checkpoint_every_steps=5": [],
    "trainer.tokens_per_microbatch=512": [],
    "trainer.sequences_per_microbatch=3": [],
    "run.folder=elsewhere": [],
    "prepared=elsewhere": FILES,
    "monitor.progress=false": [],
    "parallel.tensor=2": [],
    "evaluation.sampling.temperature=1.0": [],
    "benchmark=[gsm8k]": [],
    "data.eval.easy.path=other.jsonl": [],
    "+data.eval.more={path: other.jsonl, max_rows: null}": [],
    "data.golden_checked_rows=9": [],
    "actor.offload=all": [],
    "optimizer.max_skipped_updates=9": [],
    "reward.workers=7": [],
    "reward.memory_limit_mib=4096": [],
    "reward.parts.remote.settings.url='http://other:1/'": REMOTE,
    "reward.parts.remote.settings.parallel=3": REMOTE,
    "rollout.sequences_per_batch=3": [],
    "rollout.start_command='ssh {host} start'": SERVERS,
    "rollout.servers=['http://localhost:1']": SERVERS,
    "rollout.router='http://other:1'": SERVERS,
    "rollout.transport=distributed": SERVERS,
    "+rollout.arguments.mem-fraction-static=0.5": SERVERS,
    "rollout.health_deadline_s=1": SERVERS,
}
FIXED = {
    "seed=1": (["prepared=here"], "seed"),
    "trainer.prompts_per_step=64": ([], "trainer.prompts_per_step"),
    "model.dtype=bfloat16": ([], "model.dtype"),
    "data.train.easy.weight=0.5": ([], "data.train.easy.weight"),
    "data/curriculum=by_pass_rate": ([], "data.curriculum.name"),
    "algorithm.golden.slot=first": ([], "algorithm.golden.slot"),
    "algorithm/golden=off": ([], "algorithm.golden.name"),
    "algorithm.entropy_coefficient=0.1": ([], "algorithm.entropy_coefficient"),
    "reward.deadline_s=9": ([], "reward.deadline_s"),
    "reward.parts.exact_match.settings.ignore_case=true": ([], "reward.parts.exact_match.settings.ignore_case"),
    "actor.backend=auto": ([], "actor.backend"),
    "optimizer.lr=1": ([], "optimizer.lr"),
    "rollout.sampling.temperature=0.5": (SERVERS, "rollout.sampling.temperature"),
    "rollout.replay_routing=true": (SERVERS, "rollout.replay_routing"),
    "rollout.max_staleness=1": (SERVERS, "algorithm.mismatch.name"),  # the rule changed it, the first by name
    "rollout=sglang": ([], "rollout.engine"),
}


def continued(folder, first: list[str], then: list[str]) -> None:
    """Refuses as a run does that finds the folder of another."""
    kept = RunFolder(folder)
    kept.write_config(load_config(first).plain())
    config = load_config(then)
    kept.check_same_run(config.plain(), set(config.free_keys()), set(config.mappings()))


@pytest.mark.parametrize("change", FREE)
def test_free_keys_may_change(change, tmp_path):
    continued(tmp_path, FREE[change], [*FREE[change], change])


@pytest.mark.parametrize("change", FIXED)
def test_any_other_is_refused_by_name(change, tmp_path):
    first, key = FIXED[change]
    with pytest.raises(UserError, match=rf"was made with {key}="):
        continued(tmp_path, first, [*first, change])


@pytest.mark.parametrize(
    "change, name",
    [
        ("+reward.parts.format={weight: 0.5, gate: null, settings: {pattern: x}}", "reward.parts.format"),
        ("+data.train.more={path: x.jsonl, weight: 0.5}", "data.train.more"),
    ],
)
def test_one_more_in_a_group_of_names_is_refused(change, name, tmp_path):
    with pytest.raises(UserError, match=rf"was made without {name};"):
        continued(tmp_path, [], [change])


def test_the_folder_has_what_the_rules_made_of_the_command_line():
    """One rule so far: algorithm/mismatch=tis for samples of older weights."""
    plain = load_config(["rollout=sglang", "rollout.max_staleness=1"]).plain()
    assert plain["algorithm"]["mismatch"] == load_config(["algorithm/mismatch=tis"]).plain()["algorithm"]["mismatch"]


@pytest.mark.parametrize("lost", [Free[int] | None, list[Free[int]], dict[str, Free[int] | None]])
def test_a_mark_inside_of_a_type_is_refused(lost):
    with pytest.raises(TypeError, match=r"Marked\.key: Free has to be around the whole type"):
        create_model("Marked", __base__=Config, key=(lost, ...))
    kept = create_model("Marked", __base__=Config, key=(Free[int | None], ...), other=(int | None, ...))
    assert list(kept.model_validate({"key": None, "other": 1}).free_keys()) == ["key"]


ENGINE = """
from gcpo_mcore.base.config import Free
from gcpo_mcore.base.registry import engines
from gcpo_mcore.rollout.embedded import EmbeddedConfig, EmbeddedEngine

class Config(EmbeddedConfig):
    address: Free[str]
    mode: str

class Elsewhere(EmbeddedEngine):
    Config = Config
"""


def test_an_engine_of_another_distribution_marks_its_own_keys(tmp_path, carry):
    write_distribution(tmp_path, "elsewhere", "[gcpo_mcore.engines]\nelsewhere = elsewhere:Elsewhere\n")
    (tmp_path / "elsewhere.py").write_text(ENGINE)
    small = [
        f"prepared={carry}", f"model.path={carry}/init", f"run.folder={tmp_path}", "run.name=r",
        "trainer.prompts_per_step=2", "trainer.samples_per_prompt=2", "evaluation.every_steps=0",
        "evaluation.at_start=false", "trainer.steps=2", "rollout.engine=elsewhere",
    ]  # fmt: skip

    def train(address: str, mode: str, *more: str):
        own = [f"+rollout.address={address}", f"+rollout.mode={mode}"]
        return run([str(ROOT / "tools" / "train.py"), *small, *own, *more], tmp_path)

    done = train("here", "fast", "trainer.stop_at_step=1")
    assert done.returncode == 0, done.stderr
    done = train("there", "slow")
    assert done.returncode == 2 and "was made with rollout.mode=fast, not slow" in done.stderr
    done = train("there", "fast")
    assert done.returncode == 0, done.stderr
    assert "Hugging Face export" in done.stdout

"""The two ways to choose by name, a record's option and a registered name, are open to other distributions."""

import pytest

from gcpo_mcore.base.choice import Choice
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.registry import transports
from gcpo_mcore.run.load import load_config
from tests.config.composed import write_distribution

ELSEWHERE = """
from gcpo_mcore.data.curriculum import Curriculum
from gcpo_mcore.objective.golden import Golden
from gcpo_mcore.rewarding.extraction import Extraction

class Shouted(Extraction, option="shouted"):
    sign: str

    def __call__(self, text):
        return text.rpartition(self.sign)[0] or None

class Backwards(Curriculum):
    def order(self, prompts, key, epoch):
        return list(range(len(prompts)))[::-1]

def carry_pigeons(config, model_folder):
    return "pigeons"
"""
ENTRY_POINTS = """
[gcpo_mcore.extraction]
shouted = chosen_elsewhere:Shouted
[gcpo_mcore.curriculum]
backwards = chosen_elsewhere:Backwards
[gcpo_mcore.golden]
shouted = chosen_elsewhere:Shouted
[gcpo_mcore.transports]
pigeons = chosen_elsewhere:carry_pigeons
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    write_distribution(tmp_path, "chosen_elsewhere", ENTRY_POINTS)
    (tmp_path / "chosen_elsewhere.py").write_text(ELSEWHERE)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_an_option_of_another_distribution(elsewhere):
    extraction = "reward.parts.exact_match.settings.extraction"
    own = [f"{extraction}.name=shouted", f"+{extraction}.sign='!'", f"~{extraction}.marker"]
    config = load_config(["data.curriculum.name=backwards", *own])
    assert config.data.curriculum.order([None] * 3, "", 0) == [2, 1, 0]
    reward = config.reward.build()["exact_match"]
    assert reward.extraction("42! ") == "42"
    assert config.plain()["data"]["curriculum"] == {"name": "backwards"}


def test_its_own_keys_are_checked(elsewhere):
    extraction = "reward.parts.exact_match.settings.extraction"
    with pytest.raises(UserError, match=r"exact_match\.settings\.extraction\.sign: Field required"):
        load_config([f"{extraction}.name=shouted"])


def test_an_option_of_another_kind_is_refused(elsewhere):
    with pytest.raises(UserError, match=r"entry point gcpo_mcore\.golden: 'shouted' is no Golden"):
        load_config(["algorithm.golden.name=shouted"])


def test_it_is_among_the_known_ones(elsewhere):
    with pytest.raises(UserError, match=r"unknown curriculum 'backward' \(nearest: backwards\); known: backwards, "):
        load_config(["data.curriculum.name=backward"])


def test_a_transport_of_another_distribution(elsewhere):
    assert load_config(["rollout=sglang", "rollout.transport=pigeons"]).rollout.transport == "pigeons"
    assert transports.get("pigeons")(None, "") == "pigeons"


def test_every_transport_there_is_builds():
    config = load_config(["rollout=sglang", "rollout.weights_folder=weights"]).rollout
    assert transports.names() == ["disk", "distributed", "tensor"]
    assert len({type(transports.get(name)(config, "model")) for name in transports.names()}) == 3


def test_a_kind_keeps_what_the_chosen_option_has():
    """Also where it is dumped and read again: the run folder's config.yaml has every key."""
    golden = load_config(["algorithm=gcpo", "algorithm.golden.slot=longest"]).algorithm.golden
    assert isinstance(golden, Choice) and golden.plain()["slot"] == "longest"
    assert type(golden).model_validate(golden.plain()) == golden

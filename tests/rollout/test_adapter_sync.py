"""The adapter alone, to servers that have its base: what they load, what requests name, and what is refused."""

import json

import pytest
import torch

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf.peft import LoraFactors, PeftFolder
from gcpo_mcore.rollout.sglang.adapter import TARGETS, start_options
from gcpo_mcore.run.load import load_config
from tests.rollout.own import own_engine, weights_of
from tests.rollout.test_sglang_faults import requests

LORA = ["model/adapter=lora", "model.adapter.rank=2", "rollout.memory_saver=false"]
LAYER = "model.layers.0.self_attn.q_proj"


class AdapterOf:
    """Weights of a version that have an adapter, and nothing else to give."""

    def __init__(self, version: int):
        self.version = version

    def export(self):
        raise AssertionError("all weights were asked for")

    def adapter(self) -> LoraFactors:
        a, b = torch.full((2, 64), float(self.version)), torch.ones(64, 2)
        return LoraFactors([(LAYER, "A", a), (LAYER, "B", b)], 2, 4.0, False)

    def offload(self) -> None:
        pass


def test_servers_load_each_version_and_forget_the_one_before(tiny_models, tmp_path):
    """Requests name the version that they are for; the folder that was loaded is the one that peft would load."""
    more = [*LORA, f"rollout.adapter_folder={tmp_path}/adapters", "rollout.start_servers=2"]
    with own_engine(tiny_models["qwen2-tied"], tmp_path, *more) as engine:
        names = []
        for version in (1, 2):
            engine.update_weights(AdapterOf(version))
            (folder,) = (tmp_path / "adapters").iterdir()
            assert torch.equal(PeftFolder(folder).factor(LAYER, "A"), torch.full((2, 64), float(version)))
            names.append(folder.name)
            samples = engine.generate(requests(8), engine.config.sampling)
            assert [sample.weight_version for sample in samples] == [version] * 8
        assert engine.metrics()["sync/gb_per_s"] > 0
        with pytest.raises(UserError, match="these weights have no adapter"):
            engine.update_weights(weights_of(tiny_models["qwen2-tied"], 3))
    asked = [
        json.loads(line) for file in tmp_path.glob("servers/*/asked.jsonl") for line in file.read_text().splitlines()
    ]
    assert [sum(one["lora_path"] == name for one in asked) for name in names] == [8, 8]
    for calls in tmp_path.glob("servers/*/calls.jsonl"):
        paths = [json.loads(line)["path"] for line in calls.read_text().splitlines()]
        loads = [path for path in paths if path.endswith(("_lora_adapter", "_weight_version"))]
        assert loads == [
            "/load_lora_adapter", "/update_weight_version",
            "/load_lora_adapter", "/unload_lora_adapter", "/update_weight_version",
        ]  # fmt: skip


def test_servers_are_started_with_room_for_it():
    config = load_config(["rollout=sglang", *LORA, "rollout.adapter_folder=x"]).rollout
    options = start_options(config)
    assert (options["enable-lora"], options["max-lora-rank"], options["lora-target-modules"]) == (
        True,
        2,
        list(TARGETS),
    )
    assert start_options(load_config(["rollout=sglang", *LORA]).rollout) == {}


@pytest.mark.parametrize(
    "overrides, problem",
    [
        ([], "rollout.adapter_folder sends an adapter: model/adapter=none has none"),
        (
            ["model/adapter=lora"],
            "the servers keep the adapter's base, so rollout.memory_saver must be false",
        ),
        ([*LORA, "rollout.verify_sync=true"], "rollout.verify_sync compares all weights"),
    ],
)
def test_what_does_not_go_with_it(overrides, problem):
    saver = [] if "model/adapter=lora" in overrides else ["rollout.memory_saver=false"]
    with pytest.raises(UserError, match=problem):
        load_config(["rollout=sglang", "rollout.adapter_folder=x", *saver, *overrides])

"""The loss does not know the layout: one preset of every surrogate and reduction, loss and full gradient."""

import json
from pathlib import Path

import pytest
import torch

from gcpo_mcore.actor.hf_mapping import hf_shapes
from gcpo_mcore.hf import lora
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.hf.peft import LoraFactors, write_peft
from tests.actor.lora_reference import make_factors
from tests.launching import run

SCRIPT = Path(__file__).with_name("invariance.py")
TOKENS = "rollout.sampling.max_response_tokens=12"
CASES = [
    "algorithm=grpo",  # clipped, sequence_mean, KL in the loss
    "algorithm=dapo",  # token_mean
    f"algorithm=dr_grpo {TOKENS}",  # constant
    "algorithm=rloo",  # policy_gradient, sequence_sum, KL in the reward
    "algorithm=gcpo algorithm.golden.clip_high=0.3 algorithm/mismatch=tis_sequence",
    "algorithm=gspo algorithm/importance=sequence_token algorithm/mismatch=mis algorithm.entropy_coefficient=0.01",
    "algorithm=reinforce_pp algorithm/kl=k3_unbiased",
    "algorithm=cispo algorithm.filter.mask_truncated=true",
    "algorithm=sapo",
    "algorithm=gmpo",
    f"algorithm=luffy {TOKENS}",
    "algorithm=gcpo_conspo",  # group-wise: a group lies in several micro-batches and on both ranks
    "algorithm=disco algorithm/kl=k2",
    "algorithm=dpo",
]
LAYOUTS = {
    "micro-batches of 1": (1, ["sequences=1"]),
    "logits in chunks of 3 tokens": (1, ["logits=400"]),
    "selective recompute": (1, ["recompute=selective"]),
    "full recompute, packed": (1, ["recompute=full", "tokens=40"]),
    "micro-batches of 2": (1, ["sequences=2"]),
    "one micro-batch": (1, ["sequences=16"]),
    "packs of 24 tokens": (1, ["tokens=24"]),
    "one pack": (1, ["tokens=1000"]),
    "TP2": (2, ["tensor=2"]),
    "TP2 sequence parallel, packed": (2, ["tensor=2", "sequence=1", "tokens=40", "logits=400"]),
    "TP2 sequence parallel, full recompute": (2, ["tensor=2", "sequence=1", "recompute=full"]),
    "PP2": (2, ["pipeline=2"]),
    "PP2 packed": (2, ["pipeline=2", "tokens=40"]),
    "PP2 in 2 chunks": (2, ["pipeline=2", "virtual_pipeline=2"]),
    "CP2": (2, ["context=2"]),
    "CP2 packed": (2, ["context=2", "tokens=40"]),
    "CP2xTP2 sequence parallel, packed": (4, ["context=2", "tensor=2", "sequence=1", "tokens=60"]),
    "CP2xPP2 packed": (4, ["context=2", "pipeline=2", "tokens=40"]),
    "DP2": (2, []),
    "DP2 packed": (2, ["tokens=40"]),
    "TP2xPP2": (4, ["tensor=2", "pipeline=2"]),
    "prompts shared, one micro-batch": (1, ["sequences=16", "shared=1"]),
    "prompts shared, groups cut apart": (1, ["sequences=3", "shared=1"]),
    "prompts shared, packs of 40 tokens": (1, ["tokens=40", "shared=1"]),
    "prompts shared, full recompute": (1, ["recompute=full", "tokens=40", "shared=1"]),
    "TP2 sequence parallel, prompts shared": (2, ["tensor=2", "sequence=1", "tokens=40", "shared=1", "logits=400"]),
    "PP2 in 2 chunks, prompts shared": (2, ["pipeline=2", "virtual_pipeline=2", "tokens=40", "shared=1"]),
    "DP2, prompts shared": (2, ["sequences=3", "shared=1"]),
    "TP2xPP2, prompts shared": (4, ["tensor=2", "pipeline=2", "tokens=60", "shared=1"]),
}


def measure(model: Path, out: Path, processes: int, options: list[str]) -> dict:
    run(SCRIPT, str(model), str(out), json.dumps(CASES), *options, processes=processes)
    return torch.load(out)


ADAPTER_LAYOUTS = {  # what the layers of an adapter have to do with, each once
    "full recompute, packed, prompts shared": (1, ["recompute=full", "tokens=40", "shared=1"]),
    "TP2 sequence parallel, packed, selective recompute": (
        2,
        ["tensor=2", "sequence=1", "tokens=40", "recompute=selective"],
    ),
}


@pytest.fixture(scope="module")
def adapter(tiny_models) -> list[str]:
    """The option that trains an adapter whose A and B are far from 0."""
    model = tiny_models["qwen2-tied"]
    layers = sorted(lora.targets_of(list(hf_shapes(read_architecture(str(model)))), "all-linear"))
    folder = model / "adapter_of_invariance"
    folder.mkdir()
    named = ((*name, value) for name, value in make_factors(model, layers, 4).items())
    write_peft(folder, LoraFactors(named, 4, 8.0, False), str(model))
    return [f"lora=rank=4;alpha=8;start={folder}"]


@pytest.fixture(scope="module")
def expected(tiny_models, tmp_path_factory) -> dict:
    return measure(tiny_models["qwen2-tied"], tmp_path_factory.mktemp("expected") / "out.pt", 1, ["sequences=4"])


def test_every_case_has_a_gradient(expected):
    _check_gradients(expected)


def _check_gradients(expected: dict) -> None:
    for case, (_, loss, gradients) in expected.items():
        assert loss != 0 and all(g.norm() > 0 for g in gradients.values()), case


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_and_gradient_are_the_same(layout, expected, tiny_models, tmp_path):
    _compare(measure(tiny_models["qwen2-tied"], tmp_path / "out.pt", *LAYOUTS[layout]), expected)


@pytest.fixture(scope="module")
def expected_of_adapter(tiny_models, adapter, tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("adapter") / "out.pt"
    return measure(tiny_models["qwen2-tied"], out, 1, ["sequences=4", *adapter])


@pytest.mark.parametrize("layout", ADAPTER_LAYOUTS)
def test_so_they_are_of_an_adapter(layout, expected_of_adapter, adapter, tiny_models, tmp_path):
    _check_gradients(expected_of_adapter)
    processes, options = ADAPTER_LAYOUTS[layout]
    got = measure(tiny_models["qwen2-tied"], tmp_path / "out.pt", processes, [*options, *adapter])
    _compare(got, expected_of_adapter)


def _compare(got: dict, expected: dict) -> None:
    for case, (logp, loss, gradients) in expected.items():
        mine = got[case]
        torch.testing.assert_close(mine[0], logp, rtol=1e-5, atol=1e-5)
        assert mine[1] == pytest.approx(loss, rel=1e-5, abs=1e-6), case
        whole = torch.cat([g.double().flatten() for g in gradients.values()])
        difference = torch.cat([(mine[2][n].double() - g.double()).flatten() for n, g in gradients.items()])
        assert difference.norm() / whole.norm() < 1e-5, f"{case}: {difference.norm() / whole.norm():.1e}"

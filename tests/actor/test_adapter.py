"""LoRA on Megatron's layers: gradients and updates are those of peft and of float64, at every layout."""

from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from gcpo_mcore.actor.hf_mapping import hf_shapes
from gcpo_mcore.hf import lora
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.hf.peft import LoraFactors, write_peft
from tests.actor.families import make_model
from tests.actor.lora_reference import Reference, loss_of, make_factors
from tests.actor.worker import OPTIMIZER
from tests.launching import run

WORKER = Path(__file__).with_name("adapter_worker.py")
RANK, ALPHA = 4, 6.0  # adapter_worker.ADAPTER's
CASES = {
    "DP2": "dense",
    "DP2 distributed optimizer, overlap": "dense:distributed_optimizer=1:overlap=1",
    "TP2": "dense:tensor=2",
    "TP2 sequence parallel": "dense:tensor=2:sequence=1",
    "TP2 sequence parallel, packed, full recompute": "dense:tensor=2:sequence=1:tokens=40:recompute=full",
    "PP2": "dense:pipeline=2",
    "PP2, full recompute": "dense:pipeline=2:recompute=full:sequences=2",
    "PP2 in 2 chunks, selective recompute": "chunks:pipeline=2:virtual_pipeline=2:recompute=selective",
    "CP2 distributed optimizer": "dense:context=2:distributed_optimizer=1",
    "EP2": "experts:expert=2",
    "EP2 distributed optimizer": "experts:expert=2:distributed_optimizer=1",
    "EP2 over TP2": "experts:tensor=2:sequence=1:expert=2",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """Models, each with an adapter of all of its linear layers in its folder `adapter`."""
    folder = tmp_path_factory.mktemp("adapter")
    made = {
        "dense": make_model("qwen2", folder / "dense"),
        "chunks": make_model("qwen3", folder / "chunks", num_hidden_layers=4),
        "experts": make_model("qwen3-moe", folder / "experts"),
    }
    for model in made.values():
        layers = sorted(lora.targets_of(list(hf_shapes(read_architecture(str(model)))), "all-linear"))
        (model / "adapter").mkdir()
        named = ((*name, value) for name, value in make_factors(model, layers, RANK).items())
        write_peft(model / "adapter", LoraFactors(named, RANK, ALPHA, False), str(model))
    return made


@pytest.fixture(scope="module")
def results(models, tmp_path_factory) -> dict[str, dict]:
    out = tmp_path_factory.mktemp("results")
    cases = []
    for name, case in CASES.items():
        model, _, options = case.partition(":")
        cases.append(":".join(filter(None, [name, str(models[model]), options])))
    run(WORKER, str(out), *cases, processes=2)
    return {name: torch.load(out / f"{name}.pt") for name in CASES}


@pytest.fixture(scope="module")
def expected(models) -> dict[str, dict]:
    """{model: gradients at the start, factors and merged weights after three updates}, in float64."""
    found = {}
    for name, model in models.items():
        layers = sorted(lora.targets_of(list(hf_shapes(read_architecture(str(model)))), "all-linear"))
        reference = Reference(model, make_factors(model, layers, RANK), ALPHA / RANK)
        gradients = reference.gradients()
        for _ in range(3):
            reference.update()
        factors = {key: value.data for key, value in reference.factors.items()}
        found[name] = {"gradients": gradients, "factors": factors, "merged": reference.merged()}
    return found


def _difference(mine: dict, expected: dict) -> float:
    """Of all values together, in units of their norm."""
    assert mine.keys() == expected.keys()
    whole = torch.cat([value.double().flatten() for value in expected.values()])
    return float(
        torch.cat([(mine[k].double() - v.double()).flatten() for k, v in expected.items()]).norm() / whole.norm()
    )


@pytest.mark.parametrize("case", CASES)
def test_gradients_and_updates_are_those_of_float64(case, results, expected):
    mine, wanted = results[case], expected[CASES[case].partition(":")[0]]
    if mine["gradients"]:
        assert _difference(mine["gradients"], wanted["gradients"]) < 1e-5
    assert _difference(mine["factors"], wanted["factors"]) < 1e-5
    assert _difference(mine["merged"], wanted["merged"]) < 1e-6


@pytest.mark.parametrize("case", CASES)
def test_the_adapter_is_sent_whole(case, results):
    sent, factors = results[case]["sent"], results[case]["factors"]
    assert sent.keys() == factors.keys()
    assert [name for name, tensor in sent.items() if not torch.equal(tensor, factors[name])] == []


@pytest.mark.parametrize("case", CASES)
def test_a_fresh_adapter_changes_nothing(case, results):
    """Log-probs and exported weights are the base's to the bit; only the adapter has gradients and buffers of them."""
    assert results[case]["faults"] == []


def test_peft_trains_the_same(models, expected):
    """The reference itself, against peft: loss, gradients and three updates of its own layers, from its own reader."""
    model = AutoModelForCausalLM.from_pretrained(models["dense"], dtype=torch.float64)
    theirs = peft.PeftModel.from_pretrained(model, models["dense"] / "adapter", is_trainable=True).double()
    trained = {name: p for name, p in theirs.named_parameters() if p.requires_grad}
    o = OPTIMIZER
    adamw = torch.optim.AdamW(
        list(trained.values()), lr=o.lr, betas=(o.beta1, o.beta2), eps=o.eps, weight_decay=o.weight_decay
    )
    for update in range(3):
        theirs.zero_grad()
        loss_of(theirs, model.config.vocab_size).backward()
        if update == 0:
            gradients = {_name(name): p.grad.clone() for name, p in trained.items()}
            assert _difference(gradients, expected["dense"]["gradients"]) < 1e-12
        torch.nn.utils.clip_grad_norm_(list(trained.values()), o.clip_grad_norm)
        adamw.step()
    assert _difference({_name(n): p.data for n, p in trained.items()}, expected["dense"]["factors"]) < 1e-12


def _name(parameter: str) -> tuple[str, str]:
    """Our name of one of peft's parameters."""
    layer, kind = parameter.removeprefix("base_model.model.").split(".lora_")
    return layer, kind[0]

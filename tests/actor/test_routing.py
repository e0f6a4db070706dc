"""Tokens go to the experts that are asked for: log-probs and gradients against transformers' model in float64, whose
routers are told the same, in every layout; rows without experts are routed by the model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from gcpo_mcore.hf.tensors import tensors_on_disk
from tests.actor.families import make_model
from tests.actor.worker import make_batch
from tests.launching import run

WORKER = Path(__file__).with_name("routing_worker.py")
TEMPERATURE = 1.3  # worker.py's
LAYERS = 4


def expected(model: Path, batch, experts) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64, experts_implementation="eager")
    told = [None]

    def route(gate, inputs, output, layer):
        logits, _, own = output
        wanted = own if told[0] is None else told[0][:, layer]
        scores = torch.softmax(logits.double(), -1).gather(1, wanted)
        return logits, scores / scores.sum(-1, keepdim=True) if gate.norm_topk_prob else scores, wanted

    for number, layer in enumerate(reference.model.layers):
        layer.mlp.gate.register_forward_hook(lambda g, i, o, number=number: route(g, i, o, number))
    out = torch.zeros(batch.mask.shape, dtype=torch.float64)
    for row, (prompt, response) in enumerate(zip(batch.prompt_ids, batch.response_ids, strict=True)):
        told[0] = None if experts[row] is None else torch.from_numpy(experts[row]).long()
        ids = torch.tensor([[*prompt, *response[:-1]]])
        logits = reference(ids).logits[0, len(prompt) - 1 :] / TEMPERATURE
        logp = torch.log_softmax(logits, -1).gather(1, torch.tensor(response.tolist()).unsqueeze(1)).squeeze(1)
        logp.sum().backward()
        out[row, : len(response)] = logp.detach()
    for parameter in reference.parameters():
        parameter.data = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
    return out, {name: tensor.clone() for name, tensor in tensors_on_disk(reference).items()}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """family -> model, experts, and what is expected with and without them."""
    made = {}
    for family in ("qwen3-moe", "qwen3-moe-plain"):
        folder = tmp_path_factory.mktemp(family)
        model = make_model(family, folder / "model", num_hidden_layers=LAYERS)
        batch, rng = make_batch(131), np.random.default_rng(1)
        experts = []
        for row in range(len(batch)):
            tokens = len(batch.prompt_ids[row]) + len(batch.response_ids[row]) - 1
            drawn = rng.random((tokens, LAYERS, 4)).argsort(-1)[..., :2].astype(np.int16)  # 2 different ones of 4
            experts.append(None if batch.is_golden[row] else drawn)
        torch.save(experts, folder / "experts.pt")
        told, free = expected(model, batch, experts), expected(model, batch, [None] * len(batch))
        made[family] = model, folder / "experts.pt", told, free[0]
    return made


ONE = ("one process", 1, "")
LAYOUTS = [
    ONE,
    ("packed EP2 over TP2, recompute full", 2, "tensor=2 sequence=1 expert=2 tokens=64 recompute=full"),
    ("PP2, recompute selective", 2, "pipeline=2 sequences=2 recompute=selective"),
    ("PP2 two chunks a stage, recompute full", 2, "pipeline=2 virtual_pipeline=2 sequences=2 recompute=full"),
    ("CP2 over EP2", 2, "context=2 expert=2"),
    ("DP2 over EP2, packed", 2, "expert=2 tokens=48"),
]
CASES = [("qwen3-moe", *layout) for layout in LAYOUTS] + [("qwen3-moe-plain", *ONE)]


@pytest.mark.parametrize("family, name, processes, options", CASES, ids=[f"{c[0]} {c[1]}" for c in CASES])
def test_replayed_routing_gives_the_same_log_probs_and_gradients(cases, tmp_path, family, name, processes, options):
    model, experts, (logp, gradients), free = cases[family]
    run(WORKER, str(model), str(experts), f"{tmp_path}/out.pt", *options.split(), processes=processes)
    found, mine = torch.load(tmp_path / "out.pt")
    assert float((found - logp).abs().max()) < 1e-5
    assert float((free - logp).abs().max()) > 0.1  # the routers by themselves choose others
    assert mine.keys() == gradients.keys()
    for weight, wanted in gradients.items():
        assert float((mine[weight] - wanted).norm() / wanted.norm().clamp(min=1e-9)) < 1e-4, weight

"""The loss does not know the layout: log-probs, loss, gradient norm and weights agree with one process."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.actor.worker import make_batch
from tests.launching import run

WORKER = Path(__file__).with_name("worker.py")
LAYOUTS = {
    "TP2": (2, ["tensor=2"]),
    "TP2 sequence parallel": (2, ["tensor=2", "sequence=1"]),
    "PP2": (2, ["pipeline=2"]),
    "DP2": (2, []),
    "DP2 distributed optimizer": (2, ["distributed_optimizer=1"]),
    "DP2 distributed optimizer, overlap": (2, ["distributed_optimizer=1", "overlap=1"]),
    "PP2 in 2 chunks": (2, ["pipeline=2", "virtual_pipeline=2"]),
    "CP2 distributed optimizer": (2, ["context=2", "distributed_optimizer=1"]),
    "TP2xPP2": (4, ["tensor=2", "pipeline=2", "sequence=1"]),
    "DP2xPP2 distributed optimizer": (4, ["pipeline=2", "distributed_optimizer=1"]),
    "micro-batches of 1": (1, ["sequences=1"]),
    "one process as model/preset=gpus has it": (1, ["distributed_optimizer=1", "overlap=1", "tokens=16384"]),
    "one micro-batch": (1, ["sequences=16"]),
}


@pytest.fixture(scope="module")
def one_process(tiny_models, tmp_path_factory):
    """{family: (metrics, weights, log-probs)} of the plain layout."""
    folder = tmp_path_factory.mktemp("reference")
    return {name: _run(model, folder / name, 1, []) for name, model in tiny_models.items()}


def _run(model: Path, out: Path, processes: int, options: list[str]):
    out.mkdir(parents=True, exist_ok=True)
    run(WORKER, str(model), str(out / "out.json"), f"weights={out}/w.pt", *options, processes=processes)
    result = json.loads((out / "out.json").read_text())
    return result["metrics"], torch.load(out / "w.pt"), torch.tensor(result["logp"])


@pytest.mark.parametrize("family", ["qwen2-tied", "qwen3", "llama"])
def test_logprobs_equal_transformers(family, tiny_models, one_process):
    """fp32 log-probs at the sampling temperature, against transformers row by row."""
    model = AutoModelForCausalLM.from_pretrained(tiny_models[family]).eval()
    batch = make_batch(131)
    for row, (prompt, response) in enumerate(zip(batch.prompt_ids, batch.response_ids, strict=True)):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
        expected = (logits / 1.3).log_softmax(-1).gather(1, torch.tensor(response.tolist()).unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(one_process[family][2][row, : len(response)], expected, rtol=0, atol=1e-5)


# Untied embeddings and q/k norm matter where the tensor or pipeline group is split.
CASES = [("qwen2-tied", layout) for layout in LAYOUTS] + [("qwen3", "TP2"), ("qwen3", "TP2xPP2")]
CASES += [("llama", "DP2 distributed optimizer, overlap")]  # its head is a weight of its own


@pytest.mark.parametrize("family, layout", CASES)
def test_layout_agrees_with_one_process(family, layout, tiny_models, one_process, tmp_path):
    processes, options = LAYOUTS[layout]
    metrics, weights, logp = _run(tiny_models[family], tmp_path, processes, options)
    expected_metrics, expected_weights, expected_logp = one_process[family]
    torch.testing.assert_close(logp, expected_logp, rtol=1e-4, atol=1e-5)
    for mine, expected in zip(metrics, expected_metrics, strict=True):
        for name in ("actor/grad_norm", "actor/entropy", "actor/kl_ref_loss"):
            assert mine[name] == pytest.approx(expected[name], rel=1e-4), name
        assert mine["actor/loss"] == pytest.approx(expected["actor/loss"], rel=1e-4, abs=1e-6)
    assert weights.keys() == expected_weights.keys()
    for name, expected in expected_weights.items():
        difference = (weights[name].double() - expected.double()).norm() / expected.double().norm()
        assert difference < 1e-4, f"{name}: {difference:.1e}"

"""Training a model with experts: expert parallelism changes neither loss nor gradient norm nor weights."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from gcpo_mcore.actor.hf_mapping import HfWeights
from gcpo_mcore.base.registry import engines
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.hf.tensors import tensors_on_disk
from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.embedded import EmbeddedConfig
from gcpo_mcore.rollout.engine import FixedWeights
from tests.actor.families import make_model
from tests.launching import run

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model("qwen3-moe", tmp_path_factory.mktemp("experts") / "model")


@pytest.fixture(scope="module")
def one_process(model, tmp_path_factory):
    return _train(model, tmp_path_factory.mktemp("one"), 1)


def _train(model: Path, folder: Path, processes: int, *options: str):
    run(WORKER, str(model), f"{folder}/out.json", f"weights={folder}/w.pt", *options, processes=processes)
    return json.loads((folder / "out.json").read_text())["metrics"], torch.load(folder / "w.pt")


def _largest_difference(weights: dict, expected: dict) -> float:
    assert weights.keys() == expected.keys()
    return max(float((weights[n] - w).norm() / w.norm()) for n, w in expected.items())


@pytest.mark.parametrize(
    "processes, options",
    [
        (2, "tensor=2 sequence=1 expert=2"),
        (2, "context=2 expert=2"),
        (4, "pipeline=2 expert=2 distributed_optimizer=1"),
    ],
    ids=["EP2 over TP2", "EP2 over CP2", "EP2xPP2 distributed optimizer"],
)
def test_layout_agrees_with_one_process(model, one_process, tmp_path, processes, options):
    metrics, weights = _train(model, tmp_path, processes, *options.split())
    for mine, expected in zip(metrics, one_process[0], strict=True):
        for name in ("actor/grad_norm", "actor/loss"):
            assert mine[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name
    assert _largest_difference(weights, one_process[1]) < 1e-4


def test_engine_takes_weights_by_their_names_on_disk(model):
    """transformers fuses a layer's experts in memory; the engine's decoder is filled by the names of the export."""
    config = EmbeddedConfig(
        engine="embedded",
        sampling=Sampling(temperature=0.0, top_p=1.0, top_k=0, max_response_tokens=8),
        sequences_per_batch=4,
        stop_token_ids=[],
        max_staleness=0,
        oversampling=1,
    )
    engine = engines.get("embedded")(config, str(model), "float32", [0], repr)
    weights = HfWeights(str(model), read_architecture(str(model)))
    engine.update_weights(FixedWeights(1, lambda: ((name, weights(name)) for name in weights.names())))
    expected = AutoModelForCausalLM.from_pretrained(model)
    for name, wanted in tensors_on_disk(expected).items():
        target = engine.decoder.tensors[name]
        assert torch.equal(target.view, wanted.reshape(target.view.shape)), name
    with pytest.raises(RuntimeError, match=r"never received model.layers.0.mlp.experts.3.up_proj.weight"):
        left_out = "model.layers.0.mlp.experts.3.up_proj.weight"
        engine.update_weights(FixedWeights(2, lambda: ((n, weights(n)) for n in weights.names() if n != left_out)))

"""A real server of a model with experts tells where it sent the tokens, and the actor sends them there too.

The server runs with tests/sglang/unpinned on its path: see there.
"""

import contextlib
import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gcpo_mcore.actor.hf_mapping import HfWeights
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.rollout.engine import FixedWeights
from gcpo_mcore.rollout.sglang.process import ServerProcess
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import build_engine, process_group
from tests.actor.families import make_model
from tests.launching import run
from tests.sglang.real import ROOT, STARTER, Tokenizer, requests

OVERRIDES = ["rollout=sglang_cpu", "rollout.replay_routing=true"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = make_model("qwen3-moe", tmp_path_factory.mktemp("experts") / "model", vocab_size=25)
    AutoTokenizer.from_pretrained(STARTER).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def address(model, tmp_path_factory):
    os.chdir(ROOT)
    unpinned = Path(__file__).with_name("unpinned")
    config = load_config([*OVERRIDES, f"+rollout.environment.PYTHONPATH={unpinned}"]).rollout
    log = tmp_path_factory.mktemp("logs") / "0.log"
    process = ServerProcess(config, str(model), "float32", 0, log)
    with contextlib.ExitStack() as stack:
        stack.callback(process.end)
        process.wait()
        yield process.server.url


def at(address: str) -> list[str]:
    return [*OVERRIDES, f'rollout.servers=["{address}"]', "rollout.start_servers=0"]


def test_the_experts_told_are_those_of_the_model(model, address):
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    chosen: list[torch.Tensor] = []
    for layer in reference.model.layers:
        layer.mlp.gate.register_forward_hook(lambda gate, inputs, output: chosen.append(output[2]))
    read = HfWeights(str(model), read_architecture(str(model)))
    config = load_config(at(address))
    with process_group(1, 900), contextlib.closing(build_engine(config, str(model), Tokenizer())) as engine:
        engine.update_weights(FixedWeights(1, lambda: ((name, read(name)) for name in read.names())))
        wanted = requests()[:48]
        samples = engine.generate(wanted, config.rollout.sampling)
    for request, sample in zip(wanted, samples, strict=True):
        chosen.clear()
        with torch.no_grad():
            reference(torch.tensor([request.prompt.token_ids + sample.response_ids[:-1].tolist()]))
        own = torch.stack(chosen, 1).sort(-1).values
        told = torch.from_numpy(sample.routed_experts).long().sort(-1).values
        assert told.shape == own.shape and torch.equal(told, own)


def test_a_run_replays_them(model, address, tmp_path):
    run(
        "tools/train.py",
        *at(address),
        "rollout.transport=distributed",
        "parallel.tensor=2",
        "parallel.sequence=true",
        "parallel.expert=2",
        f"model.path={model}",
        f"run.folder={tmp_path}",
        "run.name=run",
        "trainer.steps=3",
        "trainer.prompts_per_step=8",
        "evaluation.every_steps=0",
        "evaluation.at_start=false",
        processes=2,
        timeout_s=3600,
    )
    steps = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 3 and all(m["mismatch/logp_abs_diff_max"] < 1e-4 for m in steps)

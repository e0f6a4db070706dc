"""Real servers of the run's own that are killed or stopped while they answer."""

import contextlib
import os
import signal
import time

import numpy as np
import psutil
import pytest
import torch

from gcpo_mcore.actor.hf_mapping import HfWeights
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.rollout.engine import FixedWeights
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import build_engine, process_group
from tests.sglang.real import ROOT, STARTER, Tokenizer, requests, verify_sync

OVERRIDES = [
    "rollout=sglang_cpu",
    "rollout.requests_per_server=16",
    "rollout.health_every_s=1",
    "rollout.health_deadline_s=60",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(engine, tokenizer, version -> weights), with two servers that take part after a sync."""
    os.chdir(ROOT)
    config = load_config([*OVERRIDES, verify_sync(), f"rollout.log_folder={tmp_path_factory.mktemp('logs')}"])
    tokenizer, read = Tokenizer(), HfWeights(str(STARTER), read_architecture(str(STARTER)))
    with process_group(1, 900), contextlib.closing(build_engine(config, str(STARTER), tokenizer)) as engine:
        yield engine, tokenizer, lambda version: ((name, read(name) * (1 + version / 100)) for name in read.names())


def check(samples, wanted, weights, version) -> None:
    """One sample each, with transformers' log-probs of these weights."""
    from transformers import AutoModelForCausalLM

    assert [s.index for s in samples] == [r.index for r in wanted]
    model = AutoModelForCausalLM.from_pretrained(STARTER, dtype=torch.float32)
    model.load_state_dict(dict(weights(version)), strict=False)
    for request, sample in zip(wanted, samples, strict=True):
        prompt, response = request.prompt.token_ids, sample.response_ids.tolist()
        with torch.no_grad():
            logp = model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        expected = logp[len(prompt) - 1 : -1].gather(1, torch.tensor(response)[:, None])[:, 0].numpy()
        assert np.abs(expected - sample.rollout_logp).max() < 1e-4
        assert sample.weight_version == version


@pytest.mark.parametrize("fault, number", [(signal.SIGKILL, 0), (signal.SIGSTOP, 1)])
def test_a_killed_or_stopped_server_costs_no_sample_and_comes_back(made, fault, number):
    engine, tokenizer, weights = made
    engine.update_weights(FixedWeights(number, lambda: weights(number)))
    assert len(engine.fleet.serving) == 2
    engine.metrics()

    def strike():
        os.killpg(engine.fleet.processes[number].process.pid, fault)

    wanted = requests()
    tokenizer.answers, tokenizer.at, tokenizer.on_answer = 0, 20, strike
    samples = engine.generate(wanted, load_config(OVERRIDES).rollout.sampling)
    check(samples, wanted, weights, number)
    assert tokenizer.answers == len(wanted)
    metrics = engine.metrics()
    assert metrics["rollout/servers_lost"] == metrics["rollout/servers_started"] == 1
    assert metrics["rollout/sent_again"] > 0
    # Its successor starts meanwhile; once up, it gets all weights (checksums compared) and serves.
    started = time.monotonic()
    while not engine.fleet.processes[number].server.is_up(5):
        assert time.monotonic() - started < 3600
        time.sleep(1)
    tokenizer.at = 0
    engine.update_weights(FixedWeights(5, lambda: weights(5)))
    assert len(engine.fleet.serving) == 2
    check(engine.generate(wanted, load_config(OVERRIDES).rollout.sampling), wanted, weights, 5)


def test_all_servers_dead_in_a_step_are_started_filled_and_the_step_ends(made):
    engine, tokenizer, weights = made
    engine.update_weights(FixedWeights(7, lambda: weights(7)))

    def strike():
        for process in engine.fleet.processes:
            os.killpg(process.process.pid, signal.SIGKILL)

    wanted = requests()
    tokenizer.answers, tokenizer.at, tokenizer.on_answer = 0, 20, strike
    check(engine.generate(wanted, load_config(OVERRIDES).rollout.sampling), wanted, weights, 7)
    assert tokenizer.answers == len(wanted)
    assert engine.metrics()["rollout/servers_lost"] == 2


def test_no_process_stays_behind(made):
    engine, _, _ = made
    groups = [process.process.pid for process in engine.fleet.processes]
    engine.close()
    started = time.monotonic()
    while [p for p in psutil.process_iter(["status"]) if p.info["status"] != "zombie" and _group(p) in groups]:
        assert time.monotonic() - started < 600
        time.sleep(0.1)


def _group(process: psutil.Process) -> int:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(process.pid)
    return -1

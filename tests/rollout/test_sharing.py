"""Servers on the run's own GPUs: they rest while it trains, and nothing kills them on the way."""

import json
import os
import signal
from pathlib import Path

import pytest

from gcpo_mcore.rollout.engine import FixedWeights
from gcpo_mcore.rollout.sglang.process import free_bytes, static_fraction
from tests.launching import run
from tests.rollout.own import calls, deaths, environment, own_engine, weights_of
from tests.rollout.test_sglang_faults import check, requests

MODEL = "qwen2-tied"
WORKER = Path(__file__).with_name("sharing_worker.py")


def test_a_resting_server_is_asked_for_no_forward_pass(tmp_path, tiny_models):
    model = tiny_models[MODEL]
    weights = weights_of(model, 3)
    with own_engine(model, tmp_path, "rollout.memory_saver=true") as made:
        for _ in range(3):
            made.update_weights(weights)
            check(made.generate(requests(8), made.config.sampling), requests(8))
            assert made.metrics()["rollout/servers_lost"] == 0
            made.rest()
            assert made.version == -1
            made.rest()  # a second time changes nothing
    assert deaths(tmp_path) == []
    order = [call["path"] for call in calls(tmp_path) if "memory_occupation" in call["path"]]
    assert order == [*["/release_memory_occupation", "/resume_memory_occupation", "/resume_memory_occupation"] * 3,
                     "/release_memory_occupation"]  # fmt: skip
    for call in calls(tmp_path):
        if call["path"] in ("/health_generate", "/generate"):
            assert call["released"] == []
        if call["path"].startswith("/update_weights"):
            assert call["released"] == ["cuda_graph", "kv_cache"]


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("rests", [False, True])
def test_called_off_requests_are_at_their_end_before_anything_else(tmp_path, tiny_models, rests, partial):
    """Six prompts are begun, two are wanted; a server that is told nothing would go on with the rest."""
    model = tiny_models[MODEL]
    weights = weights_of(model, 3)
    overrides = ["rollout.start_servers=2", "rollout.oversampling=3", f"rollout.memory_saver={rests}".lower()]
    if partial:
        overrides += ["rollout.partial=true", "algorithm/mismatch=tis"]
    with own_engine(model, tmp_path, *overrides, fault="slow") as made:
        for version in (3, 4):
            made.update_weights(FixedWeights(version, weights.stream))
            wanted = requests(24)
            samples = made.finish(made.begin(wanted, made.config.sampling, enough=1))
            assert sum(sample is not None for sample in samples) >= 4
            assert made.metrics()["rollout/servers_lost"] == 0
            if rests:
                made.rest()
    assert deaths(tmp_path) == []
    for call in calls(tmp_path):
        if call["path"].startswith(("/release", "/resume", "/update")):
            assert call["under_way"] == 0


def test_a_server_that_hangs_is_started_again_and_rests_before_the_actor_comes_back(tmp_path, tiny_models):
    model = tiny_models[MODEL]
    with own_engine(model, tmp_path, "rollout.memory_saver=true", "rollout.sync_deadline_s=10") as made:
        made.update_weights(weights_of(model, 3))
        first = made.fleet.processes[0]
        os.killpg(first.process.pid, signal.SIGSTOP)
        made.rest()
        second = made.fleet.processes[0]
        assert second is not first and second.is_alive and second.server.released
        assert made.metrics()["rollout/servers_lost"] == 1
        made.update_weights(weights_of(model, 4))
        assert made.fleet.serving == [second.server]
    assert deaths(tmp_path) == []


def test_actor_and_servers_never_need_more_than_the_gpu_has(tmp_path, carry):
    """A run with evaluations and checkpoints, resumed: beside a whole server there is no room for the actor's weights,
    and beside a whole actor none for a server's."""
    gpu, weights = tmp_path / "gpu", 594_688 * 4
    gpu.mkdir()
    (gpu / "capacity").write_text(str(5 * weights))  # the actor: weights, gradients, two moments
    sizes = {"weights": weights, "kv_cache": 3 * weights, "cuda_graph": weights // 2}
    overrides = [
        "rollout=sglang", f"rollout.log_folder={tmp_path}/logs", "rollout.memory_saver=true", "actor.offload=all",
        environment(tmp_path, FAKE_GPU=str(gpu), FAKE_BYTES=" ".join(f"{tag}={size}" for tag, size in sizes.items())),
        f"prepared={carry}", f"model.path={carry}/init", f"run.folder={tmp_path}", "run.name=run",
        "trainer.prompts_per_step=4", "trainer.samples_per_prompt=2", "algorithm/golden=off",
        "evaluation.at_start=true", "evaluation.every_steps=1", "trainer.checkpoint_every_steps=1",
    ]  # fmt: skip
    for steps in (2, 3):
        for left in gpu.glob("*.bytes"):  # its process is gone
            left.unlink()
        run(WORKER, str(gpu), *overrides, f"trainer.steps={steps}")
    assert deaths(tmp_path) == []
    held = [json.loads(line) for line in (gpu / "book.jsonl").read_text().splitlines()]
    assert max(h.get("server", 0) for h in held) == sum(sizes.values())
    assert max(h.get("actor", 0) for h in held) == 4 * weights
    # Only the weights of both are there together.
    assert {"actor": weights, "server": weights} in held


def test_a_server_gets_the_memory_that_doctor_counts(tmp_path, tiny_models):
    """What it is started with, and by default: it rests, unless it is to sample while the actor trains."""
    model = tiny_models[MODEL]
    long = ["rollout.sampling.max_response_tokens=40", "data.max_prompt_tokens=10"]
    cases = [
        ([], 256 * 50, True),
        (["rollout.max_staleness=1"], 2 * 256 * 50, False),
        (["rollout.requests_per_server=2"], 128, True),  # the model's longest sequence
    ]
    for number, (more, tokens, rests) in enumerate(cases):
        folder = tmp_path / str(number)
        with own_engine(model, folder, *long, *more):
            (given,) = [json.loads(path.read_text()) for path in folder.glob("servers/*/arguments.json")]
        assert int(given[given.index("--max-total-tokens") + 1]) == tokens
        assert ("--enable-memory-saver" in given) == rests


GIB = 2**30


@pytest.mark.parametrize(
    "free, first_rank, gpus, expected",
    [
        ([79 * GIB, 52 * GIB], 0, 1, 79 * GIB),
        ([79 * GIB, 52 * GIB], 0, 2, 52 * GIB),
        ([79 * GIB, 52 * GIB], 1, 2, None),  # no rank is on its second GPU
        ([None, None], 0, 1, None),
    ],
)
def test_what_is_free_on_all_gpus_of_a_server(free, first_rank, gpus, expected):
    assert free_bytes(free, first_rank, gpus) == expected


def test_the_part_of_a_gpu_that_is_for_weights_and_cache():
    """All of what is free but what passes need, what the server's process keeps (1.5 GiB) and the trainer's (1 GiB)."""
    assert static_fraction(2 * GIB, 45 * GIB) == 0.9
    assert static_fraction(2 * GIB, 4 * GIB) == 0.1  # too little: it will not start, and says so
    assert static_fraction(2 * GIB, None) is None  # SGLang's own choice

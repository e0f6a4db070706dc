"""The real sglang-router in front of two real servers, one of which is stopped while they answer."""

import contextlib
import json
import os
import signal
import subprocess
import time

import psutil
import pytest

from gcpo_mcore.actor.hf_mapping import HfWeights
from gcpo_mcore.base.http_json import HttpFailure, get
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.rollout.engine import FixedWeights
from gcpo_mcore.rollout.sglang import serve
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import build_engine, process_group
from tests.jobs import free_port
from tests.sglang.real import ROOT, STARTER, Tokenizer, requests, verify_sync


@pytest.fixture
def router(servers):
    """The address of a router in front of the servers."""
    ports = [free_port(), free_port()]
    command = [ROOT / ".venv-sglang/bin/python", "-m", "sglang_router.launch_router", "--policy", "round_robin"]
    command += ["--worker-urls", *servers, "--port", str(ports[0]), "--prometheus-port", str(ports[1])]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{ports[0]}"
        try:
            for _ in range(1200):
                assert process.poll() is None
                with contextlib.suppress(HttpFailure):
                    if len(get(f"{url}/workers", 60)["workers"]) == 2:
                        break
                time.sleep(1)
            yield url
        finally:
            process.kill()


def _process_of(url: str) -> psutil.Process:
    port = url.rsplit(":", 1)[1]
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if serve.__file__ in words[:3] and port in words:
            return process
    raise AssertionError(f"no server at {url}")


def test_a_server_stopped_behind_the_router_costs_no_sample_and_comes_back(servers, router):
    os.chdir(ROOT)
    config = load_config(
        [
            "rollout=sglang_cpu",
            f"rollout.servers={json.dumps(servers)}",
            f"rollout.router={router}",
            "rollout.start_servers=0",
            "rollout.requests_per_server=16",
            "rollout.health_every_s=1",
            "rollout.health_deadline_s=60",
            verify_sync(),
        ]
    )
    read, tokenizer = HfWeights(str(STARTER), read_architecture(str(STARTER))), Tokenizer()
    group = os.getpgid(_process_of(servers[0]).pid)

    def weights():
        return ((name, read(name)) for name in read.names())

    def strike():
        os.killpg(group, signal.SIGSTOP)

    with process_group(1, 900), contextlib.closing(build_engine(config, str(STARTER), tokenizer)) as engine:
        engine.update_weights(FixedWeights(1, weights))
        tokenizer.at, tokenizer.on_answer = 20, strike
        try:
            samples = engine.generate(requests(), config.rollout.sampling)
        finally:
            os.killpg(group, signal.SIGCONT)
        assert [s.index for s in samples] == [r.index for r in requests()]
        assert tokenizer.answers == len(samples)
        assert engine.metrics()["rollout/servers_lost"] == 1
        assert [worker["url"] for worker in get(f"{router}/workers", 60)["workers"]] == [servers[1]]
        engine.update_weights(FixedWeights(2, weights))
        assert len(engine.fleet.serving) == 2
        assert len(engine.generate(requests(), config.rollout.sampling)) == len(samples)

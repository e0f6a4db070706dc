"""A run on two nodes (two torchrun agents here): each starts a server, and starts it again when it dies."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import psutil

from gcpo_mcore.rollout.sglang import serve
from tests.jobs import end, free_port, wait_for
from tests.launching import ENVIRONMENT, ROOT
from tests.sglang.real import STARTER
from tests.still import Standstill

STEPS, RETURN_STEP = 60, 20  # the step in which training stands still until the server is back
READY = "The server is fired up"


def test_every_node_has_a_server_and_keeps_it_alive(tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
        "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}",
        "tools/train.py", "rollout=sglang_cpu", "rollout.start_servers=1", "rollout.transport=distributed",
        "rollout.health_every_s=1", "rollout.health_deadline_s=60", f"model.path={STARTER}", f"run.folder={tmp_path}",
        "run.name=run", f"trainer.steps={STEPS}", "trainer.prompts_per_step=4", "trainer.checkpoint_every_steps=0",
        "evaluation.every_steps=0", "evaluation.at_start=false",
    ]  # fmt: skip
    log = tmp_path / "job.log"
    said = tmp_path / "run/logs/sglang_node1_0.log"
    still = Standstill(tmp_path, "os.rename", f"step_{RETURN_STEP:06d}.jsonl")  # of its rollouts
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(open(log, "w"))
        env = still.environment(ENVIRONMENT)
        nodes = [subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out) for _ in range(2)]
        stack.callback(lambda: [end(node) for node in nodes])
        wait_for(lambda: len(_metrics(tmp_path)) >= 3, nodes, log)
        _server_of_the_second_node(nodes).kill()
        wait_for(lambda: still.is_met() and said.read_text().count(READY) == 2, nodes, log)
        still.end()
        wait_for(lambda: all(node.poll() is not None for node in nodes), [], log)
        assert [node.returncode for node in nodes] == [0, 0], log.read_text()[-4000:]
    steps = _metrics(tmp_path)
    assert [m["step"] for m in steps] == list(range(1, STEPS + 1))
    assert all(m["mismatch/logp_abs_diff_max"] < 1e-4 for m in steps)
    assert sum(m["rollout/servers_lost"] for m in steps) >= 1
    _, before, *after = said.read_text().split(READY)
    assert "POST /generate HTTP" in before and "POST /generate HTTP" in "".join(after)  # it served again
    assert "is started anew" in log.read_text()
    assert "POST /generate HTTP" in (tmp_path / "run/logs/sglang_0.log").read_text()


def _metrics(folder: Path) -> list[dict]:
    path = folder / "run/metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _server_of_the_second_node(nodes: list[subprocess.Popen]) -> psutil.Process:
    for node in nodes:
        below = psutil.Process(node.pid).children(recursive=True)
        if any(p.environ().get("GROUP_RANK") == "1" for p in below):
            return next(p for p in below if serve.__file__ in p.cmdline()[:3])
    raise AssertionError("no second node")

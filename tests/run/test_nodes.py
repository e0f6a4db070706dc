"""Two nodes, a killed rank and an elastic restart, by the Slurm script: the same run as on one node, unbroken.

Slurm is not there: `srun` and `scontrol` are stand-ins that start what the script says twice on this machine, as on two
nodes.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.run.setup import process_group
from tests.jobs import end, free_port, wait_for
from tests.launching import ENVIRONMENT, ROOT, run
from tests.run.test_resume import TRAIN, assert_same, options, outcome
from tests.still import Standstill

SCRIPT = "tools/slurm/train.sbatch"
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
"$@" & first=$!
"$@" & second=$!
echo $first $second > "$STEPS"
wait $first && wait $second
"""
SCANCEL = """#!/bin/bash
echo scancel "$@" >> "$ASKED"
kill -TERM $(cat "$STEPS")
"""
SCONTROL = """#!/bin/bash
echo scontrol "$@" >> "$ASKED"
echo localhost
"""


def test_the_script_is_bash():
    subprocess.run(["bash", "-n", SCRIPT], cwd=ROOT, check=True)


def test_restarts_that_would_hang_are_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with (
        pytest.raises(UserError, match="--max-restarts 2 needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"),
        process_group(threads=1, deadline_s=1),
    ):
        pass


@pytest.fixture
def slurm(tmp_path) -> dict[str, str]:
    """The environment of a job of two nodes with a process each."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return {
        **ENVIRONMENT,
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_SUBMIT_DIR": str(ROOT), "RENDEZVOUS_PORT": str(free_port()), "PROCESSES_PER_NODE": "1",
        "MAX_RESTARTS": "1", "STEPS": str(tmp_path / "steps"), "ASKED": str(tmp_path / "asked"),
    }  # fmt: skip


def test_two_nodes_go_on_after_a_rank_was_killed(carry, slurm, tmp_path):
    """The second node's rank is killed in step 4's checkpoint; torchrun starts all ranks again, which go on from step
    2."""
    run(TRAIN, *options(carry, tmp_path / "one", 5), processes=2)
    nodes = tmp_path / "two"
    log = tmp_path / "job.log"
    still = Standstill(tmp_path, "open", "tmp_step_000004/shards/__")
    with open(log, "w") as file:
        job = subprocess.Popen(
            ["bash", SCRIPT, *options(carry, nodes, 5, "trainer.async_checkpoints=true")],
            cwd=ROOT, env=still.environment(slurm), stdout=file, stderr=file,
        )  # fmt: skip
    try:
        wait_for(still.is_met, [job], log)
        assert (nodes / "r/checkpoints/step_000002").is_dir()
        _rank(job, "1").kill()
        still.end()
        assert job.wait(timeout=1200) == 0, log.read_text()[-4000:]
    finally:
        end(job)
    assert "start at step 2 of 5" in (nodes / "r/logs/rank_00001.log").read_text()
    assert_same(outcome(nodes), outcome(tmp_path / "one"))


def test_the_job_stops_before_its_time_limit_and_is_queued_again(carry, slurm, tmp_path):
    """Slurm's signal goes to the script: the ranks of both nodes stop with a checkpoint."""
    log, still = tmp_path / "job.log", Standstill(tmp_path, "open", "rollouts/.step_")
    with open(log, "w") as file:
        job = subprocess.Popen(
            ["bash", SCRIPT, *options(carry, tmp_path, 9, "trainer.checkpoint_every_steps=0")],
            cwd=ROOT, env=still.environment(slurm), stdout=file, stderr=file,
        )  # fmt: skip
    try:
        wait_for(still.is_met, [job], log)
        job.send_signal(signal.SIGUSR1)
        wait_for(lambda: "scancel" in (tmp_path / "asked").read_text(), [job], log)
        still.end()
        assert job.wait(timeout=1200) == 75, log.read_text()[-4000:]
    finally:
        end(job)
    (place,) = (tmp_path / "r/checkpoints").glob("step_*")
    step = int(place.name.removeprefix("step_"))
    assert f"SIGTERM: stopped at step {step} of 9, with a checkpoint; the same command goes on" in log.read_text()
    assert "Traceback" not in log.read_text()
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["scontrol show hostnames node[1-2]", "scancel --signal=TERM 4711", "scontrol requeue 4711"]


def _rank(job: subprocess.Popen, rank: str) -> psutil.Process:
    """The job's process of that rank: not a node's torchrun, which has no rank, and no grading worker."""
    for process in psutil.Process(job.pid).children(recursive=True):
        if any(TRAIN in word for word in process.cmdline()) and process.environ().get("RANK") == rank:
            return process
    raise AssertionError(f"no rank {rank} below the job")

"""One run at a time writes into a folder, and nothing of a run outlives its launcher."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from gcpo_mcore.monitor.metrics import read_metrics
from tests.jobs import end, wait_for
from tests.launching import ENVIRONMENT, ROOT, launch, run
from tests.run.test_resume import TRAIN, options
from tests.still import Standstill

GONE_S = 60.0  # by which what was killed is gone, on a busy machine
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture
def standing(carry, tmp_path):
    """Starts a run, of one process or under torchrun, that stands in its first checkpoint."""
    jobs = []

    def start(*launcher: str):
        still, log = Standstill(tmp_path, "open", "tmp_step_000002/shards/__0"), tmp_path / "log"
        with open(log, "w") as file:
            job = subprocess.Popen(
                [sys.executable, *launcher, TRAIN, *options(carry, tmp_path, 4)],
                cwd=ROOT, env=still.environment(ENVIRONMENT), stdout=file, stderr=file,
            )  # fmt: skip
        jobs.append(job)
        wait_for(still.is_met, [job], log)
        return job, still

    yield start
    for job in jobs:
        end(job)


def test_a_second_run_in_the_folder_is_refused(carry, standing, tmp_path):
    """With the line that says who is there; the first run ends as if nothing had been."""
    first, still = standing()
    second = launch(TRAIN, *options(carry, tmp_path, 4))
    assert second.returncode == 2, second.stderr
    (line,) = second.stderr.splitlines()
    told = re.fullmatch(rf"error: {tmp_path}/r: process (\d+) on (\S+), since (.+), writes into it; .+", line)
    assert told and told[1] == str(first.pid) and told[2] == socket.gethostname()
    time.strptime(told[3], "%Y-%m-%d %H:%M:%S")
    still.end()
    assert first.wait() == 0
    assert [line["step"] for line in read_metrics(tmp_path / "r")] == [1, 2, 3, 4]
    assert "nothing left to train" in run(TRAIN, *options(carry, tmp_path, 4))


def test_the_folder_of_a_killed_run_is_free(carry, standing, tmp_path):
    first, still = standing()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    still.end()
    run(TRAIN, *options(carry, tmp_path, 4))
    assert [line["step"] for line in read_metrics(tmp_path / "r")] == [1, 2, 3, 4]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")
def test_ranks_end_with_their_torchrun(carry, standing, tmp_path):
    """kill -9 of torchrun: both ranks and their reward workers are gone, and the folder is free."""
    torchrun, still = standing(*TORCHRUN)
    below = psutil.Process(torchrun.pid).children(recursive=True)
    ranks = [process for process in below if TRAIN in process.cmdline()]
    workers = [process for process in below if "gcpo_mcore.rewarding.worker" in process.cmdline()]
    assert len(ranks) == 2 and len(workers) >= 2
    os.kill(torchrun.pid, signal.SIGKILL)
    torchrun.wait()
    _, alive = psutil.wait_procs(below, GONE_S)
    try:
        assert not [process.cmdline() for process in alive]
    finally:
        for process in alive:
            process.kill()
    still.end()
    assert "stopped at step 3 of 4" in run(TRAIN, *options(carry, tmp_path, 4, "trainer.stop_at_step=3"), processes=2)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")
def test_an_export_ends_with_its_run(carry, tmp_path):
    """It stands in its first file while its run is killed."""
    log, still = tmp_path / "log", Standstill(tmp_path, "open", "unchecked_hf_step_000002")
    with open(log, "w") as file:
        job = subprocess.Popen(
            [sys.executable, TRAIN, *options(carry, tmp_path, 2, "trainer.hf_every_steps=2")],
            cwd=ROOT, env=still.environment(ENVIRONMENT), stdout=file, stderr=file,
        )  # fmt: skip
    try:
        wait_for(still.is_met, [job], log)
        below = psutil.Process(job.pid).children(recursive=True)
        exports = [process for process in below if "gcpo_mcore.commands.convert" in process.cmdline()]
        assert len(exports) == 1
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
        gone, alive = psutil.wait_procs(exports, GONE_S)
        for process in alive:
            process.kill()
        assert gone == exports
    finally:
        end(job)

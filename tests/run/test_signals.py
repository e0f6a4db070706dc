"""SIGTERM and SIGINT stop a run at the end of its step, with a checkpoint, on all ranks; then it goes on to the bit."""

import re
import signal
import subprocess
import sys

import psutil
import pytest

from gcpo_mcore.monitor.metrics import read_metrics
from tests.jobs import end, wait_for
from tests.launching import ENVIRONMENT, ROOT, run
from tests.run.test_resume import TRAIN, assert_same, checkpoints, options, outcome
from tests.still import Standstill

TORCHRUN = ["-m", "gcpo_mcore.base.torchrun", "--standalone", "--nproc-per-node", "2"]
NO_OTHERS = "trainer.checkpoint_every_steps=0"


@pytest.fixture
def standing(carry, tmp_path):
    """Starts a run of so many steps that stands before it opens a path with `word`: the job, its log, and what lets it
    go on."""
    jobs = []

    def start(word: str, steps: int, *launcher: str):
        still, log = Standstill(tmp_path, "open", word), tmp_path / "log"
        with open(log, "w") as file:
            job = subprocess.Popen(
                [sys.executable, *launcher, TRAIN, *options(carry, tmp_path, steps, NO_OTHERS)],
                cwd=ROOT, env=still.environment(ENVIRONMENT), stdout=file, stderr=file,
            )  # fmt: skip
        jobs.append(job)
        wait_for(still.is_met, [job], log)
        still.again()
        return job, log, still

    yield start
    for job in jobs:
        end(job)


def rank(job: subprocess.Popen, number: int) -> psutil.Process:
    """The process of a rank that torchrun started."""
    for process in psutil.Process(job.pid).children(recursive=True):
        if TRAIN in process.cmdline() and process.environ().get("RANK") == str(number):
            return process
    raise AssertionError(f"no rank {number} below the job")


def test_one_process_stops_and_goes_on(carry, standing, tmp_path):
    """Its reward workers get the signal as well, as they do where a whole job is told."""
    job, log, still = standing("metrics.jsonl", 3)
    for process in [psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)]:
        process.send_signal(signal.SIGTERM)
    still.end()
    assert job.wait() == 75, log.read_text()
    said = log.read_text()
    assert said.splitlines()[-1] == "SIGTERM: stopped at step 1 of 3, with a checkpoint; the same command goes on"
    assert "Traceback" not in said and "Hugging Face" not in said
    assert "Traceback" not in (tmp_path / "r/logs/rank_00000.log").read_text()
    assert checkpoints(tmp_path) == ["step_000001"]
    run(TRAIN, *options(carry, tmp_path, 3, NO_OTHERS))
    run(TRAIN, *options(carry, tmp_path / "whole", 3, NO_OTHERS))
    assert_same(outcome(tmp_path), outcome(tmp_path / "whole"))


def test_all_ranks_stop_for_one_of_them(carry, standing, tmp_path):
    """First rank 1 alone is told, then torchrun, which tells all of them. In whichever step they are by then."""
    last, log_of_rank_1 = 0, tmp_path / "r/logs/rank_00001.log"
    for who, number in ("rank 1", signal.SIGINT), ("torchrun", signal.SIGTERM):
        job, log, still = standing("rollouts/.step_", 6, *TORCHRUN)
        (rank(job, 1) if who == "rank 1" else job).send_signal(number)
        wait_for(lambda n=number: f"{n.name}: the run stops" in log_of_rank_1.read_text(), [job], log)
        still.end()
        assert job.wait() == 75, log.read_text()
        said = log.read_text()
        line = rf"^{number.name}: stopped at step (\d) of 6, with a checkpoint; the same command goes on$"
        (step,) = map(int, re.findall(line, said, re.MULTILINE))
        assert last < step < 6 and "Traceback" not in said, said
        assert [line["step"] for line in read_metrics(tmp_path / "r")] == list(range(1, step + 1))
        last = step
    run(TRAIN, *options(carry, tmp_path, 6, NO_OTHERS), processes=2)
    run(TRAIN, *options(carry, tmp_path / "whole", 6, NO_OTHERS), processes=2)
    assert_same(outcome(tmp_path), outcome(tmp_path / "whole"))

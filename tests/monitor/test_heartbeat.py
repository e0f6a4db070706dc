"""Of a rank that is stopped, gone or late, the others' last line has the name."""

import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.jobs import end, wait_for
from tests.launching import ENVIRONMENT, ROOT

WORKER = Path(__file__).with_name("waiting_worker.py")


@pytest.mark.parametrize(
    "what, phase, how, code",
    [
        ("stopped", "deal", "is stopped, or gone; last in phase 'grade'", 3),
        ("quiet", "grade", "is stopped, or gone; last in phase 'grade'", 3),
        ("late", "deal", "is still in phase 'grade'", 3),
        ("dead", "deal", "is stopped, or gone; last in phase 'grade'", 137),
    ],
)
def test_the_last_line_names_the_rank_that_did_not_come(what, phase, how, code, tmp_path):
    """Real ranks under torchrun, which shows the line as its root cause; but of a rank that was killed it is that."""
    log = tmp_path / "log"
    with open(log, "w") as file:
        job = subprocess.Popen(
            [sys.executable, "-m", "gcpo_mcore.base.torchrun", "--standalone", "--nproc-per-node=2", WORKER, what],
            cwd=ROOT, env=ENVIRONMENT, stdout=file, stderr=file,
        )  # fmt: skip
    line = re.compile(rf"^rank 0: phase '{phase}' waited [0-9.]+ s for others: rank 1 {re.escape(how)}$", re.MULTILINE)
    try:
        wait_for(lambda: line.search(log.read_text()) is not None, [job], log)
        wait_for(lambda: "Root Cause" in log.read_text() or "closing signal" in log.read_text(), [], log)
        for process in psutil.Process(job.pid).children(recursive=True):
            if process.status() == psutil.STATUS_STOPPED:
                process.kill()  # torchrun would give it 30 s
        assert job.wait() == code, log.read_text()
    finally:
        end(job)
    said = log.read_text()
    (told,) = set(line.findall(said))
    assert "Traceback" not in said
    assert (told if code != 137 else "Signal 9 (SIGKILL)") in said[said.index("Root Cause") :]

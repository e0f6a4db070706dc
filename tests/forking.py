"""Scripts in processes forked from one that has imported everything: an import costs every rank 8 s of CPU time.

A `ForkServer` is that process; it runs one script at a time, as `python SCRIPT` or `torchrun SCRIPT` would. What is
about the launch itself (signals, nodes, what torchrun says) belongs to a real one: `launch(forked=False)`.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.jobs import free_port

GRACE_S = 60.0  # from SIGTERM to SIGKILL for the ranks beside one that failed


class ForkServer:
    """Owns the process that forks; one for each process of the test runner."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        self._one_at_a_time = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, env=env
        )

    def run(self, script: str, args: tuple[str, ...], processes: int, timeout_s: float) -> subprocess.CompletedProcess:
        """The ranks' exit status (the first that failed) and output. TimeoutExpired past `timeout_s`; none is left."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            job = {"argv": [script, *args], "processes": processes, "out": str(out), "err": str(err)}
            with self._one_at_a_time:
                self._process.stdin.write(json.dumps(job | {"timeout_s": timeout_s}) + "\n")
                self._process.stdin.flush()
                status = json.loads(self._process.stdout.readline())
            output = out.read_text(errors="replace"), err.read_text(errors="replace")
        if status is None:
            raise subprocess.TimeoutExpired([script, *args], timeout_s, *output)
        return subprocess.CompletedProcess([script, *args], status, *output)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait(GRACE_S)


def _serve() -> None:
    """Reads jobs and forks their ranks. Returns in the ranks alone, with sys.argv set; the server exits."""
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        job = json.loads(line)
        ranks = []
        port = free_port()
        for rank in range(job["processes"]):
            pid = os.fork()
            if pid == 0:
                _become(job, rank, port)
                return
            ranks.append(pid)
        print(json.dumps(_wait(ranks, job["timeout_s"])), file=answers, flush=True)
    sys.exit()


def _become(job: dict, rank: int, port: int) -> None:
    """Turns a fresh copy of the server into rank `rank` of a job."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, job["out"]), (2, job["err"])):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    if job["processes"] > 1:
        size = str(job["processes"])
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0", WORLD_SIZE=size, LOCAL_WORLD_SIZE=size)
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    sys.argv = job["argv"]


def _wait(ranks: list[int], timeout_s: float) -> int | None:
    """The status of the first rank that failed, or 0; None if they took too long. None of them is alive after it."""
    alive, status, end = set(ranks), 0, time.monotonic() + timeout_s
    while alive:
        for pid in list(alive):
            ended, code = os.waitpid(pid, os.WNOHANG)
            if ended:
                alive.remove(pid)
                if code and status == 0:
                    status = os.waitstatus_to_exitcode(code)
                    _signal(alive, signal.SIGTERM)
                    end = min(end, time.monotonic() + GRACE_S)
        if time.monotonic() > end:
            _signal(alive, signal.SIGKILL)
            for pid in alive:
                os.waitpid(pid, 0)
            return status or None
        time.sleep(0.01)
    return status


def _signal(ranks: set[int], number: int) -> None:
    for pid in ranks:
        os.kill(pid, number)


if __name__ == "__main__":
    import transformers.models.auto.modeling_auto  # noqa: F401  (transformers imports its parts when they are named)

    import gcpo_mcore.run.plan
    import gcpo_mcore.run.setup  # noqa: F401

    _serve()
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")

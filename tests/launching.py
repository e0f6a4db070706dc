"""Launching scripts of this repository as a user would, and what of it is still alive."""

import atexit
import functools
import os
import subprocess
import sys
from pathlib import Path

import psutil

from tests import forking
from tests.forking import ForkServer

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
}


@functools.cache
def fork_server() -> ForkServer:
    """This test process's own; it ends with it."""
    server = ForkServer(ENVIRONMENT, ROOT)
    atexit.register(server.close)
    return server


def live_processes() -> list[psutil.Process]:
    """What this test process has started, and what that has, of what is alive; but for the server that forks."""
    below = psutil.Process().children(recursive=True)
    return [p for p in below if p.status() != psutil.STATUS_ZOMBIE and forking.__file__ not in p.cmdline()]


def launch(
    script: Path | str, *args: str, processes: int = 1, timeout_s: float = 1200, forked: bool = True
) -> subprocess.CompletedProcess:
    """Runs a script of this repository as one process, or under torchrun on a free port.

    `forked` does without torchrun and without the imports (see forking.py).
    """
    if forked:
        return fork_server().run(str(script), args, processes, timeout_s)
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [*command, str(script), *args], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout_s
    )


def run(script: Path | str, *args: str, processes: int = 1, timeout_s: float = 1200) -> str:
    """`launch`, which has to succeed; its standard output."""
    done = launch(script, *args, processes=processes, timeout_s=timeout_s)
    assert done.returncode == 0, (
        f"{script} {args}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-12000:]}"
    )
    return done.stdout

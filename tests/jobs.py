"""Processes that a test starts and watches: a free port, waiting for what they do, ending them."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(condition: Callable[[], bool], alive: list[subprocess.Popen], log: Path, timeout_s: float = 300) -> None:
    """Until `condition`; fails with the log's end if one of `alive` ends before, or past `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert all(process.poll() is None for process in alive), log.read_text()[-4000:]
        assert time.monotonic() < deadline, f"after {timeout_s} s\n{log.read_text()[-4000:]}"
        time.sleep(0.02)


def end(process: subprocess.Popen) -> None:
    """Kills a process and all below it, if it still lives."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            one.kill()
    process.wait()

"""Processes that a test starts and watches: a free port, waiting for what they do, ending them."""

import contextlib
import itertools
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

# Below those that Linux gives to whoever asks for any: none is taken between choosing and using it. Each process begins
# elsewhere.
_PORTS = itertools.count(os.getpid() * 97)
_FIRST_PORT, _END_PORT = 16000, 32000


def free_port() -> int:
    """A TCP port of this machine that nobody listens on; another one with each call."""
    for number in _PORTS:
        port = _FIRST_PORT + number % (_END_PORT - _FIRST_PORT)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def wait_for(condition: Callable[[], bool], alive: list[subprocess.Popen], log: Path, timeout_s: float = 1200) -> None:
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

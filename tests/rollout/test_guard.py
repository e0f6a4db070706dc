"""Nothing of a guarded command outlives whoever asked for it."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from gcpo_mcore.rollout.sglang import guard

# A server of two processes, the second of which would live on by itself: it prints its id.
SERVER = "import subprocess,sys,time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep({seconds})"
PARENT = "import os,subprocess,sys,time; subprocess.Popen([sys.executable, {guard!r}, str(os.getpid()), sys.executable, '-c', {server!r}], start_new_session=True); time.sleep(600)"  # noqa: E501


def is_gone(pid: int) -> bool:
    for _ in range(12000):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_parent_dies(how):
    code = PARENT.format(guard=guard.__file__, server=SERVER.format(seconds=600))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        sleeper = int(parent.stdout.readline())
        assert psutil.Process(sleeper).status() != psutil.STATUS_ZOMBIE
        parent.send_signal(how)
        assert is_gone(sleeper)


def test_the_command_ends():
    command = [sys.executable, guard.__file__, str(os.getpid()), sys.executable, "-c", SERVER.format(seconds=0.2)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as p:
        sleeper = int(p.stdout.readline())
        assert is_gone(sleeper)
        assert "the server ended with code 0" in p.stderr.read()

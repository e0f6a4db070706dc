"""Processes that end with the one that started them, however that ends (on Linux, by its kernel).

python -m gcpo_mcore.base.parent PARENT_PID SIGNAL COMMAND ...   becomes the command, which then gets the signal when
                                                                 PARENT_PID ends

Strictly, it is the parent's *thread* that started the process whose end counts.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(parent_pid: int, by: int = signal.SIGKILL) -> None:
    """Lets the kernel end this process `by` a signal when its parent, `parent_pid`, ends; at once if it has already.

    Elsewhere than on Linux only the latter.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by)
    if os.getppid() != parent_pid:  # it died before the line above
        os._exit(1)


def end_with_torchrun() -> None:
    """Does so for a rank that torchrun started. A command that a user's shell started outlives the shell as usual."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(os.getppid())


def tied(command: Sequence[str], by: int = signal.SIGKILL) -> list[str]:
    """The command line that starts `command` so that it ends with this process, `by` a signal."""
    return [sys.executable, "-m", "gcpo_mcore.base.parent", str(os.getpid()), str(int(by)), *command]


def kill_group(leader: subprocess.Popen, wait_s: float | None = None) -> None:
    """Kills a child and the process group that it leads; returns when it has ended, or after `wait_s` seconds."""
    if leader.returncode is None:  # not reaped yet, so the id is still its own
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        leader.wait(wait_s)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]), int(sys.argv[2]))
    os.execv(sys.argv[3], sys.argv[3:])

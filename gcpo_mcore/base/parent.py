"""Processes that end with the one that started them, however that ends (on Linux, by its kernel).

python -m gcpo_mcore.base.parent PARENT_PID COMMAND ...   becomes the command, which then ends with PARENT_PID

Strictly, it is the parent's *thread* that started the process whose end counts.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(parent_pid: int) -> None:
    """Lets the kernel kill this process when its parent, `parent_pid`, ends; at once if that has happened already.

    Elsewhere than on Linux only the latter.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the line above
        os._exit(1)


def end_with_torchrun() -> None:
    """Does so for a rank that torchrun started. A command that a user's shell started outlives the shell as usual."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(os.getppid())


def tied(command: list[str]) -> list[str]:
    """The command line that starts `command` so that it ends with this process."""
    return [sys.executable, "-m", "gcpo_mcore.base.parent", str(os.getpid()), *command]


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])

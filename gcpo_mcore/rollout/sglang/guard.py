"""Runs a command and sees to it that nothing of it outlives the process that asked: `python guard.py COMMAND ...`.

An SGLang server is several processes, and not all of them end when its first one is killed. This one leads their
process group; when its parent dies, however that happens, or the command ends, it kills the whole group. (Linux; it
imports nothing of the package, so that it starts at once.)
"""

import ctypes
import os
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _end_all(*_) -> None:
    os.killpg(0, signal.SIGKILL)  # this process too


def main(parent_pid: int, command: list[str]) -> None:
    signal.signal(signal.SIGTERM, _end_all)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:  # it died before the line above
        return
    code = subprocess.call(command)
    print(f"guard: the server ended with code {code}", file=sys.stderr, flush=True)
    _end_all()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

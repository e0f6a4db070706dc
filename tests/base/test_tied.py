"""A manager process ends with the process that started it, also by kill -9."""

import signal
import subprocess
import sys

import psutil

from tests.rollout.test_guard import is_gone

CODE = """
import sys, time
from gcpo_mcore.base.tied import tied_manager
if __name__ == "__main__":
    manager = tied_manager()
    queue = manager.Queue()
    queue.put("works")
    print(manager._process.pid, queue.get(), flush=True)
    time.sleep(600)
"""


def test_it_is_gone_with_its_parent(tmp_path):
    script = tmp_path / "parent.py"  # the manager's interpreter imports it again
    script.write_text(CODE)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        pid, said = parent.stdout.readline().split()
        assert said == "works" and psutil.pid_exists(int(pid))
        parent.send_signal(signal.SIGKILL)
        assert is_gone(int(pid))

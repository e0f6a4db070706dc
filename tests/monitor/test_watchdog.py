"""A phase past its deadline ends the process and says where; real processes."""

import faulthandler
import os
import subprocess
import sys
import time

import pytest

from gcpo_mcore.monitor import watchdog
from gcpo_mcore.monitor.watchdog import EXIT_CODE, Phases, phase


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)


def test_a_hanging_phase_ends_the_process_with_its_name_rank_and_stacks():
    done = run(
        "import threading, time\n"
        "from gcpo_mcore.monitor.watchdog import phase\n"
        "def wait_for_rewards(): time.sleep(1000)\n"
        "threading.Thread(target=wait_for_rewards).start()\n"  # not a daemon: a clean exit would wait for it
        "with phase('generate', 0.5, rank=3):\n"
        "    def receive_weights(): time.sleep(1000)\n"
        "    receive_weights()\n"
    )
    assert done.returncode == EXIT_CODE == 3
    assert done.stderr.startswith("rank 3: phase 'generate' did not end within 0.")
    assert "receive_weights" in done.stderr
    assert "wait_for_rewards" in done.stderr


def test_the_last_words_are_in_the_rank_s_log_too(tmp_path):
    done = run(
        "import time\n"
        "from pathlib import Path\n"
        "from gcpo_mcore.monitor.run_log import run_log\n"
        "from gcpo_mcore.monitor.watchdog import phase\n"
        f"with run_log(Path({str(tmp_path)!r}), rank=3), phase('sync', 0.5, rank=3):\n"
        "    def receive_weights(): time.sleep(1000)\n"
        "    receive_weights()\n"
    )
    assert done.returncode == EXIT_CODE
    for told in (done.stderr, (tmp_path / "logs/rank_00003.log").read_text()):
        assert told.count("rank 3: phase 'sync' did not end within ") == 1
        assert "receive_weights" in told


def test_a_log_that_cannot_be_written_to_does_not_keep_the_process(tmp_path):
    """A pipe that nobody reads stands for a file system that no longer answers."""
    os.mkfifo(tmp_path / "log")
    done = run(
        "import logging, time\n"
        "import gcpo_mcore.monitor.watchdog as w\n"
        "w.LOG_S = 0.5\n"
        f"handler = logging.FileHandler({str(tmp_path / 'log')!r}, delay=True)\n"
        "logging.getLogger('gcpo_mcore').addHandler(handler)\n"
        "with w.phase('checkpoint', 0.5, 0): time.sleep(1000)\n"
    )
    assert done.returncode == EXIT_CODE
    assert "phase 'checkpoint' did not end" in done.stderr


def test_an_inner_phase_does_not_disarm_the_outer():
    done = run(
        "import time\n"
        "from gcpo_mcore.monitor.watchdog import phase\n"
        "with phase('outer', 1.0, 0):\n"
        "    with phase('inner', 60, 0): pass\n"
        "    time.sleep(1000)\n"
    )
    assert done.returncode == EXIT_CODE
    assert "phase 'outer'" in done.stderr


def test_a_call_that_holds_the_interpreter_lock_is_ended_too():
    done = run(
        "import gcpo_mcore.monitor.watchdog as w\nw.BACKSTOP_S = 1.0\nwith w.phase('score', 0.5, 0):\n    9 ** 9 ** 9\n"
    )
    assert done.returncode != 0
    assert "most recent call first" in done.stderr


def test_a_phase_in_time_leaves_nothing_behind():
    done = run(
        "import time\n"
        "from gcpo_mcore.monitor.watchdog import phase\n"
        "with phase('update', 3, 0): pass\n"
        "time.sleep(4)\n"
        "print('alive')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")
    with pytest.raises(KeyError), phase("update", 100, 0):
        raise KeyError
    assert watchdog._backstops == []
    faulthandler.cancel_dump_traceback_later()


def test_seconds_add_up_per_step():
    phases, started = Phases(rank=0, deadline_s=1000), time.monotonic()
    for _ in range(2):
        with phases.phase("grade"):
            time.sleep(0.05)
    with pytest.raises(ValueError), phases.phase("sync", deadline_s=500):
        raise ValueError
    assert phases.seconds.keys() == {"grade", "sync"}
    taken = phases.drain()
    assert 0.1 <= taken["grade"] <= time.monotonic() - started
    assert phases.seconds == {}

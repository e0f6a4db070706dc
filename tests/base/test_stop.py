"""What a signal does to a process that handles it (base/stop.py): real signals to real processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.jobs import end

PROGRAM = """
import sys, time
from gcpo_mcore.base.errors import Stopped
from gcpo_mcore.base.stop import exit_code, stoppable
try:
    with stoppable(float(sys.argv[1]), lambda: None) as stop:
        if sys.argv[2] == "loop":
            stop.wait_for_step_ends()
        print("ready", flush=True)
        while not stop.number or sys.argv[3] == "stuck":
            time.sleep(0.01)
        stop.done()
        print("the step is done", flush=True)
        sys.exit(exit_code())
except Stopped as stopped:
    print(stopped, file=sys.stderr)
    sys.exit(exit_code())
"""


@pytest.fixture
def start():
    started = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | environment,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        end(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_loop_ends_its_step(start, number):
    process = start("600", "loop", "goes on")
    process.send_signal(number)
    process.send_signal(number)  # passed on a second time, as by torchrun
    out, err = process.communicate(timeout=600)
    assert (process.returncode, out, err) == (75, "the step is done\n", "")


def test_before_the_loop_it_ends_at_once(start):
    process = start("600", "before", "stuck")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (75, "SIGTERM: stopped while no step was under way\n")


def test_what_does_not_end_in_time_is_given_up(start):
    process = start("0.2", "loop", "stuck")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 75
    assert err == (
        "SIGTERM: what was under way did not end within 0.2 s (monitor.stop_deadline_s) and is given up; "
        "the newest checkpoint stands\n"
    )


def test_a_second_signal_ends_at_once(start):
    process = start("600", "loop", "stuck")
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert process.returncode == 130
    assert process.stderr.read() == "SIGINT, the second signal: ended at once; the newest checkpoint stands\n"


def test_torchrun_is_given_no_reason_to_start_again(start):
    """It takes every code but 0 for a failure, as long as it has restarts left."""
    for done, code in (("0", 0), ("2", 75)):
        process = start(
            "600", "loop", "goes on", TORCHELASTIC_MAX_RESTARTS="2", TORCHELASTIC_RESTART_COUNT=done,
        )  # fmt: skip
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=600) == code


IN_A_DESTRUCTOR = """
import signal
from gcpo_mcore.base.errors import Stopped
from gcpo_mcore.base.stop import stoppable

class Ends:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)  # what is raised in here, Python prints and forgets

try:
    with stoppable(600, lambda: None) as stop:
        Ends()
        while not stop.number:
            pass
        print("it is lost", flush=True)
        stop.wait_for_step_ends()
        print("it is forgotten")
except Stopped as stopped:
    print(stopped)
"""


def test_a_signal_in_a_destructor_is_not_forgotten():
    done = subprocess.run([sys.executable, "-c", IN_A_DESTRUCTOR], capture_output=True, text=True, timeout=600)
    assert done.stdout == "it is lost\nSIGTERM: stopped before the first step\n"
    assert (done.returncode, done.stderr) == (0, "")

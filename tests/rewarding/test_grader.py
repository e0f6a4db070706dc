"""The worker pool against rewards that hang, crash, eat memory and lie: real processes, real signals.

The hostile reward is a distribution of its own, found through its entry point as a user's would be.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.rewarding.config import RewardConfig
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.rewarding.pool import AttendedClock
from gcpo_mcore.samples import Prompt, Sample
from tests.launching import live_processes

CONFIGS = Path(__file__).parents[2] / "configs" / "reward"
DEADLINE_S = 600.0  # of what has to succeed
HANGING_DEADLINE_S = 5.0  # where an answer hangs until then, beside others that take no time
BOTH_DEADLINES = {"deadline_s": HANGING_DEADLINE_S, "wall_deadline_s": HANGING_DEADLINE_S}

HOSTILE = """
import asyncio, ctypes, os, re, signal, socket, subprocess, sys, threading, time
from gcpo_mcore.base.config import Config
from gcpo_mcore.base.registry import rewards

@rewards.register
class Hostile(Config):
    def __call__(self, answers):
        return [self.score(a) for a in answers]

    def score(self, answer):
        with open(os.environ["TRIED"], "a") as file:
            file.write(answer.response_text[:20] + "\\n")
        match answer.response_text:
            case "sleep": time.sleep(10000)
            case "interrupt":
                os.kill(os.getppid(), signal.SIGALRM)
                time.sleep(10000)
            case "slow": time.sleep(0.2)
            case "deaf":
                for s in (signal.SIGTERM, signal.SIGINT): signal.signal(s, signal.SIG_IGN)
                time.sleep(10000)
            case "hold the lock": 9 ** 9 ** 9
            case "backtrack": re.fullmatch("(a+)+b", "a" * 40)
            case "exit": os._exit(3)
            case "sys.exit": sys.exit(0)
            case "segfault": ctypes.string_at(0)
            case "memory":
                kept = []
                while True: kept.append(bytearray(2 ** 24))
            case "child":
                subprocess.Popen([sys.executable, "-c", "import time; time.sleep(10000) # grandchild"])
                time.sleep(10000)
            case "raise": raise KeyError("no such column")
            case "nan": return float("nan")
            case "huge": return 1e39
            case "half of the largest": return 3e38
            case "two": return []
            case "torch": return float("torch" in sys.modules)
            case "pid": return float(os.getpid())
            case "tokens": return float(answer.response_tokens)
            case "count":
                with open(answer.columns["file"], "a") as f: f.write("x")
            case "sigint": os.kill(os.getpid(), signal.SIGINT)
            case "stop": os.kill(os.getpid(), signal.SIGSTOP)
            case "chatter": chatter()
            case "chatter later": threading.Timer(0.0, chatter).start()
            case "close": os.closerange(0, 64)
            case "connect":
                socket.create_connection(("127.0.0.1", answer.columns["port"]), timeout=60).close()
                return 1.0
            case "environment": return float("SOME_API_KEY" in os.environ)
        return 1.0 if answer.response_text == answer.reference else 0.0

def chatter():
    # Bytes on every descriptor, in the form of a grade, of a length, and in none.
    for descriptor in range(1, 64):
        for said in (b'{"index": 0, "scores": {"hostile": 7.0}}\\n', b"\\0\\0\\0\\x05hello", b"half a line"):
            try:
                os.write(descriptor, said)
            except OSError:
                pass

def shouted(answers):
    return [float(a.response_text.isupper()) for a in answers]

MET = []

async def patient(answers):
    text = answers[0].response_text
    if text == "sleep": await asyncio.sleep(10000)
    if text == "raise": raise KeyError("no such column")
    if text.startswith("one of 8"):  # none ends before eight have begun
        MET.append(text)
        enough = len(MET) + -len(MET) % 8
        while len(MET) < enough: await asyncio.sleep(0.01)
    return [0.5]
"""

HANGING = ["sleep", "deaf", "hold the lock", "backtrack", "child"]
CRASHING = ["exit", "sys.exit", "segfault", "memory", "close"]
RAISING = ["raise", "nan", "huge"]


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A folder on the path that holds an installed distribution with the reward 'hostile'."""
    site = tmp_path / "site"
    info = site / "hostile_rewards-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "hostile_rewards.py").write_text(HOSTILE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile-rewards\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[gcpo_mcore.rewards]\nhostile = hostile_rewards:Hostile\n"
        "shouted = hostile_rewards:shouted\npatient = hostile_rewards:patient\n"
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("TRIED", str(site / "tried"))  # every answer that 'hostile' has begun with, a line each
    return site


def tried(site):
    """The answers that 'hostile' has begun with."""
    return (site / "tried").read_text().splitlines() if (site / "tried").exists() else []


def config(**knobs):
    tree = {
        "parts": {"hostile": {"weight": 1.0, "gate": None, "settings": {}}},
        "accuracy": "hostile",
        "accuracy_threshold": 1.0,
        "clip": None,
        "workers": 2,
        "deadline_s": DEADLINE_S,
        "wall_deadline_s": DEADLINE_S,
        "network": "auto",
        "environment": ["TRIED"],
        "max_failed_rounds": 0,
        "memory_limit_mib": 512,
        "failed_score": -1.0,
        "max_response_chars": 1000,
    }
    return RewardConfig.model_validate(tree | knobs)


def pairs(texts, **columns):
    return [
        (Prompt(str(i), "s", f"prompt {i}", [1], "good", columns=columns), Sample(0, [1, 2], t))
        for i, t in enumerate(texts)
    ]


@pytest.mark.parametrize("hostility", CRASHING + RAISING)
def test_a_hostile_answer_costs_itself(hostile, hostility):
    texts = ["good", "bad"] * 30
    texts[17] = hostility
    work = pairs(texts)
    with Grader(config()) as grader:
        metrics = grader.grade(work)
        again = pairs(["good", "bad"] * 4)
        clean = grader.grade(again)  # the replaced worker serves
    kind = "crash" if hostility in CRASHING else "error"
    for i, (_, sample) in enumerate(work):
        if i == 17:
            assert (sample.reward, sample.is_accurate, sample.grading_failed) == (-1.0, False, kind)
        else:
            right = texts[i] == "good"
            assert (sample.reward, sample.is_accurate, sample.grading_failed) == (float(right), right, "")
    counted = {k: metrics[f"grading/{k}"] for k in ("timeouts", "crashes", "errors")}
    assert counted == {"timeouts": 0.0, "crashes": float(kind == "crash"), "errors": float(kind == "error")}
    assert sorted(tried(hostile)) == sorted([*texts, *["good", "bad"] * 4])  # each once: what it hit is not tried again
    assert [s.reward for _, s in again] == [1.0, 0.0] * 4
    assert clean["grading/crashes"] == clean["grading/timeouts"] == 0
    assert live_processes() == []


def test_many_hostile_answers_at_once_cost_a_deadline_and_themselves(hostile):
    """Every way to hang, and some to crash and to raise: none is tried twice, and all the others are graded."""
    texts = ["good", "exit", "bad", "segfault", "raise"] * 2 + ["good"] * 10 + HANGING
    work = pairs(texts)
    with Grader(config(**BOTH_DEADLINES, workers=len(HANGING))) as grader:
        metrics = grader.grade(work)
        again = pairs(["good", "bad"] * 4)
        clean = grader.grade(again)
    kinds = {"good": "", "bad": "", "exit": "crash", "segfault": "crash", "raise": "error"}
    assert [s.grading_failed for _, s in work] == [kinds.get(t, "timeout") for t in texts]
    assert [s.reward for _, s in work] == [{"good": 1.0, "bad": 0.0}.get(t, -1.0) for t in texts]
    counts = {k: metrics[f"grading/{k}"] for k in ("timeouts", "crashes", "errors")}
    assert counts == {"timeouts": len(HANGING), "crashes": 4, "errors": 2}
    assert sorted(tried(hostile)) == sorted([*texts, *["good", "bad"] * 4])
    assert metrics["grading/seconds"] >= HANGING_DEADLINE_S
    assert [s.reward for _, s in again] == [1.0, 0.0] * 4 and clean["grading/timeouts"] == 0
    assert live_processes() == []


CRASHES = {
    "exit": "the worker ended with code 3",
    "segfault": "the worker was ended by SIGSEGV",
    "memory": "out of memory (reward.memory_limit_mib=512)",
}


def test_a_crash_says_why(hostile, caplog):
    with Grader(config(workers=1)) as grader:
        for text, reason in CRASHES.items():
            grader.grade(pairs(["good", text]))
            assert f"1 distinct answers ended their worker, the first: {reason}" in caplog.text
            assert grader.failure == f"{reason} (prompt 1, reference 'good', response '{text}')"
        grader.grade(pairs(["good"]))
        assert grader.failure == ""


@pytest.mark.parametrize("text", ["chatter", "chatter later"])
def test_what_a_reward_writes_anywhere_shifts_no_grade(hostile, text):
    """On its output, and on the very socket that the grades go over."""
    texts = ["good", text, "bad", "good", text, "good", "bad", "bad"] * 4
    work = pairs(texts)
    with Grader(config(workers=1)) as grader:
        metrics = grader.grade(work)
        again = pairs(texts)
        grader.grade(again)
    expected = [float(text == "good") for text in texts]
    assert [s.reward for _, s in work] == [s.reward for _, s in again] == expected
    assert metrics["grading/crashes"] == metrics["grading/errors"] == 0


def test_a_worker_that_gets_no_time_is_not_late(hostile):
    """It stands still for longer than its deadline, as on a machine that is busy elsewhere; then it goes on."""
    deadline_s, stopped = 1.0, threading.Event()

    def go_on(pid):
        while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        time.sleep(2 * deadline_s)
        os.kill(pid, signal.SIGCONT)
        stopped.set()

    work = pairs(["good", "stop", "good"])
    with Grader(config(workers=1, deadline_s=deadline_s)) as grader:
        threading.Thread(target=go_on, args=grader.pool.pids()).start()
        metrics = grader.grade(work)
    assert stopped.wait(DEADLINE_S) and metrics["grading/timeouts"] == 0
    assert [(s.reward, s.grading_failed) for _, s in work] == [(1.0, ""), (0.0, ""), (1.0, "")]


def test_a_worker_that_stands_still_for_ever_ends_at_the_far_deadline(hostile):
    """In the middle of an answer, and before it has read the next: megabytes of answers wait to be sent then."""
    with Grader(config(workers=1, wall_deadline_s=2.0, max_response_chars=10**6)) as grader:
        work = pairs(["good", "stop"])
        assert grader.grade(work)["grading/timeouts"] == 1 and work[1][1].grading_failed == "timeout"
        assert "no grade within 2 s (reward.wall_deadline_s)" in grader.failure
        grader.grade(pairs(["good"]))  # by the worker in its place, which is up now
        os.kill(grader.pool.pids()[0], signal.SIGSTOP)
        large = pairs([f"{number}" + "x" * 10**6 for number in range(4)])
        metrics = grader.grade(large)  # a stopped worker is nobody's fault: another one gets them
    assert metrics["grading/timeouts"] == 0 and [s.reward for _, s in large] == [0.0] * 4


def test_a_trainer_that_stood_still_finds_nobody_late():
    """Of a minute in which it was stopped, in or after a wait of 1 s, few seconds count."""
    times = iter([0.0, 0.5, 60.5, 61.5])
    clock = AttendedClock(lambda: next(times))
    counted = []
    for expected_s in (1.0, 1.0, 1.0):
        clock.pass_on(expected_s)
        counted.append(clock.now_s)
    assert counted == [0.5, 2.5, 3.5]


def test_cpu_time_ends_what_computes_for_ever(hostile):
    work = pairs(["good", "hold the lock", "backtrack", "good"])
    with Grader(config(workers=1, deadline_s=1.0)) as grader:
        grader.grade(work)
        assert "over 1 s of CPU time (reward.deadline_s) (prompt 1" in grader.failure
    assert [s.grading_failed for _, s in work] == ["", "timeout", "timeout", ""]


def test_a_worker_has_few_of_the_trainers_variables(hostile, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "secret")
    for names, expected in (["TRIED"], 0.0), (["TRIED", "SOME_API_KEY"], 1.0):
        work = pairs(["environment"])
        with Grader(config(environment=names)) as grader:
            grader.grade(work)
        assert work[0][1].reward == expected


@pytest.fixture
def can_leave_network():
    """Whether this platform lets a process leave the network: asked in one of its own."""
    code = "import sys; from gcpo_mcore.rewarding.confinement import leave_network; sys.exit(bool(leave_network()))"
    return subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_worker_has_no_network_unless_it_is_allowed(hostile, can_leave_network):
    with socket.create_server(("127.0.0.1", 0)) as server:
        work = pairs(["connect"], port=server.getsockname()[1])
        with Grader(config(network="allow")) as grader:
            grader.grade(work)
        assert work[0][1].reward == 1.0
        if not can_leave_network:
            with pytest.raises(UserError, match=r"reward\.network=deny: the network cannot be taken away here"):
                Grader(config(network="deny")).__enter__()
            return
        for network in ("auto", "deny"):
            work = pairs(["connect", "good"], port=server.getsockname()[1])
            with Grader(config(network=network)) as grader:
                grader.grade(work)
                assert "rewards have no network, unless they say needs_network" in grader.failure
            assert [s.grading_failed for _, s in work] == ["error", ""]


def test_a_reward_that_needs_the_network_is_refused_without():
    tree = yaml.safe_load((CONFIGS / "remote.yaml").read_text()) | {"network": "deny"}
    with pytest.raises(UserError, match=r"reward\.network=deny: remote cannot grade without it"):
        Grader(RewardConfig.model_validate(tree))


def test_the_deadline_is_per_answer_not_per_batch(hostile):
    """The first 32 go to the worker at once; 0.2 s each is more than the deadline in all, and none of them is late."""
    work = pairs(["slow"] * 32 + ["good"] * 96)
    with Grader(config(**BOTH_DEADLINES, workers=1)) as grader:
        metrics = grader.grade(work)
    assert metrics["grading/timeouts"] == 0 and metrics["grading/seconds"] > 32 * 0.2 > HANGING_DEADLINE_S


def test_mathematics_that_never_ends_is_graded_like_any_other():
    """Nothing of it is worked out: it is wrong, in time, and so those around it are graded."""
    bombs = ["9^{9^{9^9}}", "99999999!", "(" * 5000, r"\frac" * 300, "1+" * 50_000 + "1"]
    tree = yaml.safe_load((CONFIGS / "math_verify.yaml").read_text()) | {"deadline_s": 20.0, "workers": len(bombs)}
    prompt = Prompt("p", "s", "p", [1], r"\frac{1}{2}")
    right, wrong = (Sample(0, [1], r"\boxed{0.5}"), Sample(1, [1], r"\boxed{1/2}")), Sample(2, [1], r"\boxed{2}")
    hostile = [Sample(3 + i, [1], rf"\boxed{{{bomb}}}") for i, bomb in enumerate(bombs)]
    with Grader(RewardConfig.model_validate(tree)) as grader:
        metrics = grader.grade([(prompt, s) for s in [right[0], *hostile, right[1], wrong]])
    assert [s.reward for s in (*right, wrong, *hostile)] == [1.0, 1.0, 0.0] + [0.0] * len(bombs)
    assert not any(s.grading_failed for s in (*right, wrong, *hostile))
    assert metrics["grading/timeouts"] == 0
    assert live_processes() == []


def test_equal_answers_are_graded_once(hostile, tmp_path):
    prompt = Prompt("p", "s", "p", [1], "good", columns={"file": str(tmp_path / "calls")})
    other = Prompt("o", "s", "o", [1], "good", columns={"file": str(tmp_path / "calls")})
    work = [(prompt, Sample(i, [1], "count")) for i in range(8)] + [(other, Sample(0, [1], "count"))]
    with Grader(config()) as grader:
        metrics = grader.grade(work)
    assert (tmp_path / "calls").read_text() == "xx"
    assert (metrics["grading/samples"], metrics["grading/distinct_samples"]) == (9, 2)


def test_length_belongs_to_the_answer(hostile):
    prompt = Prompt("p", "s", "p", [1], "good")
    work = [(prompt, Sample(0, [1], "tokens")), (prompt, Sample(1, [1, 2, 3], "tokens"))]
    with Grader(config()) as grader:
        grader.grade(work)
    assert [s.reward for _, s in work] == [1.0, 3.0]


def test_only_the_tail_of_a_response_is_seen(hostile):
    work = pairs(["x" * 500 + "good"])
    with Grader(config(max_response_chars=4)) as grader:
        grader.grade(work)
    assert work[0][1].reward == 1.0


def test_a_function_is_a_reward_without_settings(hostile):
    part = {"weight": 1.0, "gate": None, "settings": {}}
    with Grader(config(parts={"shouted": part}, accuracy="shouted")) as grader:
        samples = pairs(["GOOD", "good"])
        grader.grade(samples)
    assert [s.reward for _, s in samples] == [1.0, 0.0]
    with pytest.raises(UserError, match=r"reward.parts.shouted.settings: shouted is a function and has no settings"):
        config(parts={"shouted": {**part, "settings": {"loud": True}}}, accuracy="shouted")


def test_an_async_reward_waits_for_a_batch_at_once_and_a_hanging_answer_costs_itself(hostile):
    part = {"weight": 1.0, "gate": None, "settings": {}}
    both = {"patient": part, "hostile": part}
    with Grader(config(parts=both, workers=1, **BOTH_DEADLINES)) as grader:
        samples = pairs([f"one of 8: {i}" for i in range(32)])  # they go to the worker by eight
        assert grader.grade(samples)["grading/timeouts"] == 0
        assert {s.reward for _, s in samples} == {0.5}
        samples = pairs(["good", "sleep", "raise", "good"])
        metrics = grader.grade(samples)
    assert [s.grading_failed for _, s in samples] == ["", "timeout", "error", ""]
    assert [s.reward for _, s in samples] == [1.5, -1.0, -1.0, 1.5] and metrics["grading/timeouts"] == 1


def test_a_reward_that_float32_cannot_hold_is_an_error_that_names_the_part(hostile, caplog):
    huge = pairs(["huge", "good"])
    with Grader(config()) as grader:
        assert grader.grade(huge)["grading/errors"] == 1
    assert [s.reward for _, s in huge] == [-1.0, 1.0] and huge[0][1].grading_failed == "error"
    assert "hostile: ValueError: the score is 1e+39, which float32 cannot hold" in caplog.text
    caplog.clear()
    part = {"weight": 2.0, "gate": None, "settings": {}}  # each score fits, their weighted sum does not
    with Grader(config(parts={"hostile": part})) as grader:
        weighted = pairs(["half of the largest", "good"])
        assert grader.grade(weighted)["grading/errors"] == 1
    assert [s.reward for _, s in weighted] == [-1.0, 2.0]
    assert "hostile: with its weight the reward is 6e+38, which float32 cannot hold" in caplog.text


def test_nothing_to_grade(hostile):
    with Grader(config()) as grader:
        assert grader.grade([])["grading/samples"] == 0


def test_a_worker_that_dies_between_two_steps_is_nobodys_fault(hostile):
    with Grader(config()) as grader:
        for pid in grader.pool.pids():
            os.kill(pid, signal.SIGKILL)
            while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
        work = pairs(["good"] * 4)
        metrics = grader.grade(work)
    assert [s.reward for _, s in work] == [1.0] * 4
    assert metrics["grading/crashes"] == 0


def test_workers_ignore_ctrl_c(hostile):
    work = pairs(["sigint"])
    with Grader(config()) as grader:
        grader.grade(work)
    assert work[0][1].grading_failed == ""


def test_a_reward_that_cannot_start_is_a_clear_error(hostile):
    good = config()
    (hostile / "hostile_rewards.py").write_text("raise RuntimeError('no dictionary')")
    with pytest.raises(UserError, match="a grading worker cannot start: RuntimeError: no dictionary"), Grader(good):
        pass
    assert live_processes() == []


def test_the_memory_limit_may_be_below_what_the_imports_took(hostile):
    with Grader(config(memory_limit_mib=1)) as grader:
        work = pairs(["memory"])
        grader.grade(work)
    assert work[0][1].grading_failed == "crash"


def test_an_interrupted_grading_leaves_a_usable_pool(hostile):
    with Grader(config()) as grader:
        signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            grader.grade(pairs(["interrupt", "sleep"]))  # the first sends the signal from its worker
        work = pairs(["good"] * 3)
        grader.grade(work)
    assert [s.reward for _, s in work] == [1.0] * 3
    assert live_processes() == []


def wait_until_gone(pids):
    """A worker that waits to be reaped by init is gone."""
    patience = time.monotonic() + 600
    while any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids):
        assert time.monotonic() < patience, "a grading worker outlived its trainer"
        time.sleep(0.05)


SCRIPT = """
    import json, sys, torch   # a trainer without a main guard, and not light at all
    from gcpo_mcore.rewarding.config import RewardConfig
    from gcpo_mcore.rewarding.grader import Grader
    from gcpo_mcore.samples import Prompt, Sample
    grader = Grader(RewardConfig.model_validate(json.loads(sys.argv[1]))).__enter__()
    print(json.dumps(grader.pool.pids()), flush=True)
    work = [(Prompt("p", "s", "p", [1], "good"), Sample(0, [1], text)) for text in sys.argv[2:]]
    grader.grade(work)
    print(json.dumps([s.reward for _, s in work]), flush=True)
"""


def start_script(tmp_path, *texts, **knobs):
    script = tmp_path / "trainer.py"
    script.write_text(textwrap.dedent(SCRIPT))
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, str(script), config(**knobs).model_dump_json(), *texts]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def test_workers_never_import_the_main_script_nor_torch(hostile, tmp_path):
    out, _ = start_script(tmp_path, "torch", "good").communicate(timeout=1200)
    pids, rewards = map(json.loads, out.splitlines())
    assert rewards == [0.0, 1.0]
    wait_until_gone(pids)  # though the script did not even close its grader


@pytest.mark.parametrize("text", ["sleep", "hold the lock"])
def test_no_worker_outlives_a_killed_trainer(hostile, tmp_path, text):
    script = start_script(tmp_path, text)
    pids = json.loads(script.stdout.readline())
    while not tried(hostile):  # it grades now
        assert script.poll() is None
        time.sleep(0.02)
    assert all(psutil.pid_exists(pid) for pid in pids)
    script.kill()
    script.communicate()
    wait_until_gone(pids)

"""metrics.jsonl, across resumes and torn writes."""

import json
import os
import signal
import subprocess
import sys

import pytest

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.monitor.metrics import MetricsLog, read_metrics


def strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is not json")

    return json.loads(text, parse_constant=refuse)


def test_a_line_per_step_is_valid_json(tmp_path):
    log = MetricsLog(tmp_path)
    log.write(1, {"reward/mean": 0.5, "loss": float("nan"), "kl": float("-inf")})
    line = strict((tmp_path / "metrics.jsonl").read_text())
    assert line.pop("time_unix_s") > 1.7e9
    assert line == {"step": 1, "reward/mean": 0.5, "loss": None, "kl": None}
    assert not (tmp_path / "tb").exists()


def test_resuming_counts_no_step_twice(tmp_path):
    log = MetricsLog(tmp_path)
    for step in range(1, 6):
        log.write(step, {"reward": step})
    log = MetricsLog(tmp_path)
    log.truncate_after(3)
    for step in range(4, 7):
        log.write(step, {"reward": 10 * step})
    assert [(m["step"], m["reward"]) for m in read_metrics(tmp_path)] == [
        (1, 1), (2, 2), (3, 3), (4, 40), (5, 50), (6, 60)
    ]  # fmt: skip


def test_truncating_before_anything_was_written(tmp_path):
    log = MetricsLog(tmp_path / "new")
    log.truncate_after(0)
    assert read_metrics(tmp_path / "new") == []


def test_a_torn_last_line_is_dropped(tmp_path):
    MetricsLog(tmp_path).write(1, {"reward": 1})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "rew')
    assert [m["step"] for m in read_metrics(tmp_path)] == [1]
    MetricsLog(tmp_path).write(2, {"reward": 2})
    assert [m["step"] for m in read_metrics(tmp_path)] == [1, 2]


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        read_metrics(tmp_path)


def test_what_was_written_survives_kill_9(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from gcpo_mcore.monitor.metrics import MetricsLog\n"
        "MetricsLog(sys.argv[1]).write(1, {'reward': 1})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=os.environ, timeout=600)
    assert done.returncode == -signal.SIGKILL
    assert [m["step"] for m in read_metrics(tmp_path)] == [1]

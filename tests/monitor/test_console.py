"""The progress display and the tables."""

import contextlib
import fcntl
import io
import logging
import os
import pty
import struct
import termios

from rich.console import Console

from gcpo_mcore.monitor import progress as progress_module
from gcpo_mcore.monitor.progress import Progress, Work, clock
from gcpo_mcore.monitor.tables import print_results, print_sizes

SHOWN = {"reward": 0.25, "all_wrong_fraction": 0.5, "golden_injections": 3, "tokens_per_s": 12345.6, "held_out": 0.75}


def told(caplog, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def test_one_line_per_step_without_a_terminal(caplog):
    caplog.set_level(logging.DEBUG, "gcpo_mcore")
    out = io.StringIO()
    with Progress(total_steps=10, done_steps=3, enabled=True, stream=out) as progress:
        progress.update(4, **SHOWN)
        progress.update(5, **SHOWN | {"held_out": None})
    first, second = told(caplog, logging.INFO)
    assert first.startswith("step 4/10  reward 0.250  all_wrong 0.50  golden 3  tokens/s 12,346  held_out 0.750")
    assert second.startswith("step 5/10") and "held_out 0.750" in second and second.endswith("0:00:00 left")
    assert out.getvalue() == ""


def _read_all(reader: int) -> bytes:
    """All that was written to a terminal whose other end is closed: one read may give a part of it only."""
    found = b""
    with contextlib.suppress(OSError):  # Linux answers EIO, not an empty read, when nothing is left
        while part := os.read(reader, 100_000):
            found += part
    os.close(reader)
    return found


def test_a_bar_in_a_terminal(caplog):
    caplog.set_level(logging.DEBUG, "gcpo_mcore")
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))  # lines, columns
    with (
        os.fdopen(writer, "w") as terminal,
        Progress(total_steps=10, done_steps=3, enabled=True, stream=terminal) as progress,
    ):
        progress.update(10, **SHOWN)
    shown = _read_all(reader).decode()
    assert "10/10" in shown
    assert "reward 0.250" in shown and "held_out 0.750" in shown and "00:00 left" in shown
    assert told(caplog, logging.INFO) == [] and told(caplog, logging.DEBUG)[0].startswith("step 10/10")


def test_a_quiet_run_has_its_steps_in_the_log_only(caplog):
    caplog.set_level(logging.DEBUG, "gcpo_mcore")
    out = io.StringIO()
    with Progress(10, 0, enabled=False, stream=out) as progress:
        progress.update(1, **SHOWN)
    assert out.getvalue() == "" and told(caplog, logging.INFO) == []
    assert told(caplog, logging.DEBUG)[0].startswith("step 1/10")


def test_work_without_steps_tells_now_and_then_and_at_its_end(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "gcpo_mcore")
    monkeypatch.setattr(progress_module, "LINE_EVERY_S", 3600.0)
    with Work("rows", 4000, stream=io.StringIO()) as work:
        work.advance(1000)
        monkeypatch.setattr(progress_module, "LINE_EVERY_S", 0.0)
        work.advance(1000)
        monkeypatch.setattr(progress_module, "LINE_EVERY_S", 3600.0)
        work.advance(2000)
    lines = told(caplog, logging.INFO)
    assert [line.partition("  ")[0] for line in lines] == ["rows 2,000 of 4,000", "rows 4,000 of 4,000"]
    assert lines[-1].endswith("0:00:00 left")


def test_times_are_hours_minutes_and_seconds():
    assert [clock(seconds) for seconds in (0, 59.6, 3725)] == ["0:00:00", "0:01:00", "1:02:05"]


def test_tables():
    out = io.StringIO()
    console = Console(file=out, width=100)
    print_sizes("Sizes", {"samples_per_step": 4096, "precision": "bf16", "packed": True}, console)
    print_results("Results", ["run", "pass@1"], [{"run": "gcpo", "pass@1": 0.51239}, {"run": "grpo"}], console)
    text = out.getvalue()
    for word in ("samples_per_step", "4,096", "bf16", "yes", "gcpo", "0.5124", "-"):
        assert word in text

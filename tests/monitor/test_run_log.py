"""What the library says: on stderr once, in the rank's log with time and level."""

import logging
import re
import sys
from pathlib import Path

import pytest

from gcpo_mcore.monitor.run_log import LOGGER, log_to_stderr, open_logs, run_log

log = logging.getLogger("gcpo_mcore.rollout.sglang.fleet")


def lines(folder: Path, rank: int = 0) -> list[str]:
    return (folder / f"logs/rank_{rank:05d}.log").read_text().splitlines()


def test_a_warning_is_on_stderr_and_in_the_log_once(tmp_path, capsys, monkeypatch):
    """Also where another library has given the root logger a handler, as `logging.warning` does on its own."""
    elsewhere = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(elsewhere)
    monkeypatch.setenv("RANK", "0")
    try:
        with log_to_stderr(), run_log(tmp_path, rank=0):
            log.warning("rollout: %s is lost", "http://a")
            log.info("started anew")
            log.debug("of interest later")
            assert capsys.readouterr().err == "rollout: http://a is lost\nstarted anew\n"
    finally:
        logging.getLogger().removeHandler(elsewhere)
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    wanted = ["WARNING rollout: http://a is lost", "INFO started anew", "DEBUG of interest later"]
    assert all(re.fullmatch(f"{time} {end}", line) for line, end in zip(lines(tmp_path), wanted, strict=True))


def test_ranks_above_0_give_their_number_on_stderr(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    with run_log(tmp_path, rank=3):
        log.warning("lost")
    assert capsys.readouterr().err == "rank 3: lost\n"
    assert lines(tmp_path, rank=3)[0].endswith(" WARNING lost")


def test_nothing_is_left_behind(tmp_path, capsys):
    before = LOGGER.level, LOGGER.propagate, list(LOGGER.handlers)
    with pytest.raises(KeyError), log_to_stderr(), run_log(tmp_path, 0):
        assert open_logs() == [tmp_path / "logs/rank_00000.log"]
        raise KeyError
    assert (LOGGER.level, LOGGER.propagate, list(LOGGER.handlers)) == before
    assert open_logs() == []
    log.warning("after the run")
    assert not any("after the run" in line for line in lines(tmp_path))


def test_what_was_said_before_the_run_had_a_folder_is_in_its_log_and_in_no_other(tmp_path):
    with log_to_stderr():
        log.warning("a checkpoint is left out")
        with run_log(tmp_path / "a", 0):
            log.warning("during")
        log.warning("between")
        with run_log(tmp_path / "b", 0):
            pass
    assert [line[20:] for line in lines(tmp_path / "a")] == ["WARNING a checkpoint is left out", "WARNING during"]
    assert lines(tmp_path / "b") == []


def test_a_resumed_run_appends_and_a_death_leaves_its_traceback(tmp_path, capsys):
    with run_log(tmp_path, 0):
        log.debug("first half \udce9")  # not UTF-8
    with pytest.raises(ZeroDivisionError), run_log(tmp_path, 0):
        log.warning("second half")
        print(1 / 0)
    found = lines(tmp_path)
    assert found[0].endswith(r"first half \udce9") and found[1].endswith("second half")
    assert found[2].endswith("CRITICAL ended by division by zero")
    assert found[3].startswith("Traceback") and found[-1] == "ZeroDivisionError: division by zero"
    assert "Traceback" not in capsys.readouterr().err  # whoever ends the process shows it


def test_a_decorated_tool_says_it_on_stderr(capsys):
    @log_to_stderr()
    def main() -> int:
        log.info("already there")
        print("result")
        return 7

    assert [main(), main()] == [7, 7]
    out, err = capsys.readouterr()
    assert (out, err) == ("result\nresult\n", "already there\nalready there\n")

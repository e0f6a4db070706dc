"""An error on one rank ends the job with that rank's line; one that all ranks have is told once."""

from pathlib import Path

import pytest

from tests.launching import launch

WORKER = Path(__file__).with_name("failing_worker.py")


@pytest.mark.parametrize(
    "who, line", [("one", "error: rank 1: row 7 of the file is torn"), ("both", "error: row 7 of the file is torn")]
)
def test_who_fails_says_so_once(who, line):
    done = launch(WORKER, who, processes=2, forked=False)
    assert done.returncode != 0
    said = [text for text in done.stderr.splitlines() if text.startswith("error:")]
    assert said == [line]

"""When a launch ends and when it takes a checkpoint, by steps, by time and by signal."""

import signal
from types import SimpleNamespace

import pytest

from gcpo_mcore.base.stop import Stop
from gcpo_mcore.run.load import parse
from gcpo_mcore.run.setup import process_group
from gcpo_mcore.run.step_ends import StepEnds
from tests.config.composed import composed


@pytest.fixture
def ends():
    """Of a launch, with a clock that stands where `now` says."""
    with process_group(1, 900):
        now = SimpleNamespace(s=0.0)

        def build(*overrides: str) -> tuple[StepEnds, Stop, SimpleNamespace]:
            stop = Stop(900, lambda: None)
            return StepEnds(parse(composed(*overrides)).trainer, stop, lambda: now.s), stop, now

        yield build


def test_by_time_beside_steps(ends):
    made, _, now = ends("trainer.steps=9", "trainer.checkpoint_every_steps=4", "trainer.checkpoint_every_s=60")
    found = {}
    for step, seconds in enumerate((59, 60, 100, 119, 170, 180, 181, 181, 181), start=1):
        now.s = seconds
        found[step] = made.agree(step)
    due = [step for step, (_, is_due) in found.items() if is_due]
    assert due == [2, 4, 6, 8, 9]  # 60 s after the start; the step; 60 s after that (119 + 60 < 180); the step; the end
    assert [step for step, (is_last, _) in found.items() if is_last] == [9]


def test_by_signal(ends):
    made, stop, _ = ends("trainer.steps=9", "trainer.checkpoint_every_steps=0")
    assert made.agree(1) == (False, False) and made.stopped_by == ""
    stop.number = signal.SIGTERM
    assert made.agree(2) == (True, True) and made.stopped_by == "SIGTERM"

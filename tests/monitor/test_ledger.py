"""A phase's peak is that of its own body, the largest over ranks, also when it is over before the phase ends."""

import json
import sys
from pathlib import Path

import pytest

from tests.launching import run

MIB = 1 / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak of resident memory cannot be forgotten")
def test_peaks_by_phase():
    first, second, (own, other) = json.loads(run(Path(__file__).with_name("ledger_worker.py"), processes=2))
    assert first.keys() == {"memory/large_peak_gib", "memory/small_peak_gib"}
    difference = first["memory/large_peak_gib"] - first["memory/small_peak_gib"]
    assert 80 * MIB < difference < 140 * MIB
    assert second.keys() == {"memory/around_peak_gib", "memory/inner_peak_gib", "memory/small_peak_gib"}
    assert second["memory/inner_peak_gib"] - second["memory/small_peak_gib"] > 40 * MIB
    assert second["memory/around_peak_gib"] == pytest.approx(second["memory/inner_peak_gib"], abs=2 * MIB)
    # The peak since the start outlives the phases, on each rank its own.
    assert other == pytest.approx(first["memory/large_peak_gib"], abs=2 * MIB)
    assert other - own > 40 * MIB

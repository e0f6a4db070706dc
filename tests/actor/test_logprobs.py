"""Log-probs in chunks: exact, and their memory does not grow with vocabulary x tokens."""

import json
from pathlib import Path

import pytest

from tests.launching import ROOT, run

WORKER = Path(__file__).with_name("logprobs_worker.py")


@pytest.mark.parametrize("processes", [1, 2])
def test_every_chunk_size_equals_float64_in_one_piece(processes, tmp_path):
    """Over 2 processes a slice of the vocabulary ends in padding."""
    run(WORKER, str(tmp_path / "out.json"), processes=processes)
    results = json.loads((tmp_path / "out.json").read_text())
    assert len(results) == 4
    for logits_per_chunk, differences in results.items():
        assert all(d < 1e-6 for d in differences.values()), f"{logits_per_chunk}: {differences}"


def test_memory_does_not_grow_with_vocabulary_times_tokens():
    """8 times the tokens: 16 to 128 MiB of logits, at most 4 MiB of them at a time. All at once it is seen to grow."""
    peak = {}
    for way in ("chunks", "at-once"):
        for tokens in (256, 2048):
            sizes = ("--logits-per-chunk", str(2**20), "--case", way, "16384", str(tokens))
            peak[way, tokens] = json.loads(run(ROOT / "bench" / "logprob_memory.py", *sizes))["mib"]
    assert peak["chunks", 2048] - peak["chunks", 256] < 16, peak
    assert peak["at-once", 2048] - peak["at-once", 256] > 200, peak

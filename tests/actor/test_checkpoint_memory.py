"""A checkpoint of the distributed optimizer: no rank holds more of it than its own shards."""

import json

from tests.launching import ROOT, run


def test_a_rank_needs_little_beside_its_shards(tmp_path):
    """12 bytes of state per parameter, gathered, would be 12 at least; it was 30. A tensor at a time is under 3."""
    out = tmp_path / "out.json"
    run(ROOT / "bench/checkpoint.py", "--out", str(out), "--vocabulary", "60000", processes=2)
    (found,) = json.loads(out.read_text())
    assert found["parameters"] > 30_000_000
    assert max(found["save_bytes_per_parameter"]) < 6
    assert max(found["load_bytes_per_parameter"]) < 8

"""parallel.recompute makes the parts again that it says, and no others. (That the gradient stays: test_invariance.)"""

import json
from pathlib import Path

from tests.actor.families import make_model
from tests.launching import run

WORKER = Path(__file__).with_name("recompute_worker.py")


def test_parts_run_twice_where_they_are_recomputed(tmp_path):
    models = [make_model("qwen2", tmp_path / "dense"), make_model("qwen3-moe", tmp_path / "experts")]
    run(WORKER, str(tmp_path / "out.json"), *map(str, models))
    for family, counts in json.loads((tmp_path / "out.json").read_text()).items():
        assert counts["none"] == {"mlp": 1, "self_attention": 1}, family
        assert counts["full"] == {"mlp": 2, "self_attention": 2}, family
        assert counts["selective"] == {"mlp": 2, "self_attention": 1}, family

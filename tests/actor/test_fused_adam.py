"""A resumed Adam goes on counting its updates, also one that counts as the fused ones do.

The count corrects the moments' bias: an update that counts as the first again is up to twice too large.
"""

import json
from pathlib import Path

from tests.launching import run

WORKER = Path(__file__).with_name("fused_adam_worker.py")


def test_a_fused_adam_goes_on_counting(tiny_models, tmp_path):
    run(WORKER, str(tiny_models["qwen2-tied"]), str(tmp_path / "out.json"), str(tmp_path))
    found = json.loads((tmp_path / "out.json").read_text())
    assert found.keys() == {"plain", "distributed"}
    for name, case in found.items():
        groups = len(case["whole"])
        assert (case["loaded"], case["after"], case["whole"]) == ([2] * groups, [3] * groups, [3] * groups), name
        assert case["is_same"], name

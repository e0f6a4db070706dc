"""tools/evaluate.py by SGLang gives what the embedded engine gives."""

import json
import re

from tests.launching import run
from tests.sglang.real import STARTER


def test_both_engines_measure_the_same(servers):
    table = re.compile(r"\s([01]\.\d{3})\D+([01]\.\d{3})")
    embedded = table.search(run("tools/evaluate.py", f"model.path={STARTER}"))
    asked = ["rollout=sglang_cpu", f"rollout.servers={json.dumps(servers)}", "rollout.start_servers=0"]
    served = table.search(run("tools/evaluate.py", f"model.path={STARTER}", *asked, timeout_s=3600))
    assert embedded.groups() == served.groups() == ("1.000", "0.000")

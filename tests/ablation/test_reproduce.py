"""`make reproduce`: the published runs of GCPO pass, those of the algorithms without golden answers do not."""

import json

import pytest

from bench.reproduce import PUBLISHED, compare
from tests.launching import ROOT

RESULTS = json.loads(PUBLISHED.read_text())["results"]


def metrics(points: list[dict]) -> list[dict]:
    """Lines of metrics.jsonl with a published run's evaluations, and steps without one between them."""
    lines = [{"step": p["step"], "val/hard/avg@1": p["hard"], "val/easy/avg@1": p["easy"]} for p in points]
    return [*lines, {"step": 3, "reward/mean": 0.5}]


@pytest.mark.parametrize("algorithm, passes", [("gcpo", True), ("gcpo_kernels", True), ("grpo", False)])
@pytest.mark.parametrize("seed", RESULTS["gcpo"])
def test_who_passes(algorithm, seed, passes):
    found = compare(metrics(RESULTS[algorithm][seed]), RESULTS["gcpo"])
    assert len(found) == 4 and all(one.is_good for one in found) == passes


def test_a_run_that_is_not_at_its_end_is_told():
    with pytest.raises(ValueError, match="no evaluation at step 120"):
        compare(metrics(RESULTS["gcpo"]["31"][:-1]), RESULTS["gcpo"])


def test_the_page_has_the_ranges():
    page = (ROOT / "docs/reproduce.md").read_text()
    for one in compare(metrics(RESULTS["gcpo"]["31"]), RESULTS["gcpo"]):
        mean, (low, high) = sum(one.published) / len(one.published), one.within
        published = f"{mean:.3f} ({min(one.published):.3f} to {max(one.published):.3f})"
        assert f"| step {one.step}, {one.kind} | {published} | {low:.3f} to {high:.3f} |" in page

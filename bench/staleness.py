"""Sampling while training against one after the other: `python bench/staleness.py [OUT.json] [OVERRIDE ...]`.

Runs of the quick start on one real SGLang server (make sglang-cpu) and one training process, with rollout.max_staleness
0, 1 and 2, in turns, twice each. A step's wall time is the median of steps 4 on. For the comparison to be fair,
generation and training should take about as long; both are printed, so that OVERRIDE can be chosen.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = [
    "rollout=sglang_cpu", "rollout.start_servers=1", "algorithm/mismatch=tis", "trainer.steps=14",
    "evaluation.every_steps=0", "evaluation.at_start=false", "trainer.checkpoint_every_steps=0",
]  # fmt: skip
FROM_STEP = 4  # before it, both warm up


def measure(staleness: int, folder: str, overrides: list[str]) -> dict[str, float]:
    """Median seconds of a step and of its phases."""
    name = f"stale{staleness}"
    subprocess.run(
        [sys.executable, ROOT / "tools/train.py", *SETTINGS, f"rollout.max_staleness={staleness}",
         f"run.folder={folder}", f"run.name={name}", *overrides],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    rows = [json.loads(line) for line in (Path(folder) / name / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row.get("step", 0) >= FROM_STEP]
    keys = ("time_s/step", "time_s/sync", "time_s/sample", "time_s/grade", "time_s/score", "time_s/update")
    return {key: statistics.median(row.get(key, 0.0) for row in rows) for key in keys}


def main(out: str | None, overrides: list[str]) -> None:
    found: dict[int, list[dict[str, float]]] = {0: [], 1: [], 2: []}
    for turn in range(2):
        for staleness in found:
            with tempfile.TemporaryDirectory() as folder:
                found[staleness].append(measure(staleness, folder, overrides))
                print(f"turn {turn}, max_staleness {staleness}: {found[staleness][-1]}", flush=True)
    best = {staleness: min(rows, key=lambda row: row["time_s/step"]) for staleness, rows in found.items()}
    generation, step = best[0]["time_s/sample"], best[0]["time_s/step"]
    ratios = {staleness: best[staleness]["time_s/step"] / step for staleness in (1, 2)}
    print(f"in turn: generation {generation:.2f} s, all else {step - generation:.2f} s")
    for staleness, ratio in ratios.items():
        print(f"step with max_staleness {staleness} / 0 = {ratio:.3f} (best of two each)")
    if out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        found = {"ratios": ratios, "runs": found, "overrides": overrides, "commit": commit}
        Path(out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    has_out = sys.argv[1:2] and "=" not in sys.argv[1]
    main(sys.argv[1] if has_out else None, sys.argv[1 + bool(has_out) :])

"""Is a run of the quick start what it is elsewhere? Compares it with GCPO in docs/results/quickstart.json:

    python bench/reproduce.py runs/gcpo-carry-seed0      # `make reproduce` makes the run first

The starter is trained on your machine, so digits differ by its rounding. What is compared is held-out accuracy (128
problems each) before the first step and after the last one: it may be below the worst, or above the best, of the
seeds by three standard errors of 128 problems (of one problem at least). Exit code 1 if it is not within.
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from gcpo_mcore.monitor.metrics import read_metrics

PUBLISHED = Path(__file__).resolve().parents[1] / "docs" / "results" / "quickstart.json"
PROBLEMS = 128
STANDARD_ERRORS = 3.0


@dataclass(frozen=True)
class Compared:
    """One accuracy of the run beside those of the published seeds at that step."""

    step: int
    kind: str
    here: float
    published: list[float]

    @property
    def within(self) -> tuple[float, float]:
        """The range that counts as reproduced."""
        lowest, highest = min(self.published), max(self.published)
        return max(0.0, lowest - _tolerance(lowest)), min(1.0, highest + _tolerance(highest))

    @property
    def is_good(self) -> bool:
        """Whether the run is within."""
        low, high = self.within
        return low <= self.here <= high

    def told(self) -> str:
        """A line for a person."""
        mean = sum(self.published) / len(self.published)
        low, high = self.within
        verdict = "ok" if self.is_good else "NOT REPRODUCED"
        return (
            f"step {self.step:>2}, {self.kind}: {self.here:.3f}; published {mean:.3f} ({min(self.published):.3f} to "
            f"{max(self.published):.3f}), reproduced from {low:.3f} to {high:.3f}: {verdict}"
        )


def _tolerance(accuracy: float) -> float:
    error = math.sqrt(accuracy * (1 - accuracy) / PROBLEMS)
    return STANDARD_ERRORS * max(error, 1 / PROBLEMS)


def compare(metrics: list[dict], published: dict[str, list[dict]]) -> list[Compared]:
    """First and last evaluation of a run's metrics.jsonl beside those of the seeds. ValueError if one is not there."""
    found = []
    by_step = {line["step"]: line for line in metrics if "val/hard/avg@1" in line}
    seeds = list(published.values())
    for place in (0, -1):
        step = seeds[0][place]["step"]
        if step not in by_step:
            raise ValueError(f"the run has no evaluation at step {step}: is it the quick start's, and at its end?")
        for kind in ("hard", "easy"):
            here = by_step[step][f"val/{kind}/avg@1"]
            found.append(Compared(step, kind, here, [points[place][kind] for points in seeds]))
    return found


def main() -> int:
    """The exit code; says how the run compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    given = parser.parse_args()
    about = json.loads(PUBLISHED.read_text())
    try:
        found = compare(read_metrics(given.run), about["results"]["gcpo"])
    except (OSError, ValueError) as error:
        print(f"{given.run}: {error}", file=sys.stderr)
        return 2
    print(f"published: commit {about['commit'][:8]}, " + ", ".join(f"{k} {v}" for k, v in about["versions"].items()))
    print("\n".join(one.told() for one in found))
    return 0 if all(one.is_good for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())

"""A long run: resident memory, open files, threads and disk must not grow with the steps.

    python -m tests.faults.soak [--steps 1500] [--out FILE]

One process, looked at from outside every LOOK_S seconds. The slope is that of a straight line through what was seen
from step WARM_UP on. The last line is JSON; exit code 1 if it is above MIB_PER_100_STEPS, or files or threads grow.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from tests.faults.job import TIMEOUT_S
from tests.jobs import end
from tests.launching import ENVIRONMENT, ROOT, launch
from tests.run.test_resume import TRAIN, options

WARM_UP, LOOK_S, MIB_PER_100_STEPS = 100, 0.5, 1.0
GROWING = ("files", "threads", "checkpoints_mib")


def watch(job: subprocess.Popen, folder: Path) -> list[dict]:
    """What the job's first process holds, once for each step that was seen, until it ends."""
    process, seen, last = psutil.Process(job.pid), [], 0
    metrics = folder / "r/metrics.jsonl"
    changed = time.monotonic()
    while job.poll() is None:
        time.sleep(LOOK_S)
        step = len(metrics.read_bytes().splitlines()) if metrics.is_file() else 0
        if step == last:
            assert time.monotonic() - changed < TIMEOUT_S, f"no step after {last} within {TIMEOUT_S} s"
            continue
        last, changed = step, time.monotonic()
        try:
            seen.append(
                {
                    "step": step,
                    "rss_mib": process.memory_info().rss / 2**20,
                    "files": process.num_fds(),
                    "threads": process.num_threads(),
                    "checkpoints_mib": _size(folder / "r/checkpoints") / 2**20,
                }
            )
        except psutil.NoSuchProcess:
            break
    return seen


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # one that was just removed
            continue
    return total


def verdict(seen: list[dict], steps: int) -> dict:
    """Slopes and ranges from WARM_UP on."""
    late = [each for each in seen if each["step"] >= WARM_UP]
    slope = float(np.polyfit([each["step"] for each in late], [each["rss_mib"] for each in late], 1)[0]) * 100
    halves = late[: len(late) // 2], late[len(late) // 2 :]
    # The middle one: what is open while a checkpoint is written is seen by chance.
    first, second = ({name: median(each[name] for each in half) for name in GROWING} for half in halves)
    grown = {name: second[name] - first[name] for name in GROWING}
    return {
        "steps": steps,
        "looks": len(late),
        "rss_mib_per_100_steps": round(slope, 3),
        "rss_mib": [round(late[0]["rss_mib"], 1), round(late[-1]["rss_mib"], 1)],
        "second_half_above_first": {name: round(value, 2) for name, value in grown.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        carry = Path(folder) / "carry"
        made = launch("tools/prepare.py", "--out", str(carry), "--skip-starter")
        assert made.returncode == 0, made.stderr
        more = ("trainer.checkpoint_every_steps=25", "rollout.sampling.max_response_tokens=22")
        command = [sys.executable, TRAIN, *options(carry, Path(folder), args.steps, *more)]
        with open(Path(folder) / "log", "w") as log:
            job = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log)
        try:
            seen = watch(job, Path(folder))
        finally:
            end(job)
        assert job.returncode == 0, (Path(folder) / "log").read_text()[-3000:]
    found = verdict(seen, args.steps)
    print(json.dumps(found))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    grown = found["second_half_above_first"]
    is_bounded = found["rss_mib_per_100_steps"] < MIB_PER_100_STEPS and max(grown["files"], grown["threads"]) <= 0
    return 0 if is_bounded and grown["checkpoints_mib"] < 1 else 1


if __name__ == "__main__":
    sys.exit(main())

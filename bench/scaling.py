"""Seconds of a step as samples, response tokens, the model and the ranks grow, as JSON:

    python bench/scaling.py --out bench/results/scaling_cpu.json [--curves samples response_tokens hidden ranks]

GRPO runs on the CPU as in bench/versus_trl.py, one after the other, one thread a rank. Each curve changes one thing of
the same small run. Ranks share the same batch by data parallelism: more than there are cores wait for each other.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, commit
from versus_trl import SAMPLES, environment, make_files, own_figures, own_options

BASE = {"hidden": 128, "layers": 4, "intermediate": 384, "vocabulary": 1024,
        "prompts": 16, "prompt_tokens": 16, "response_tokens": 64, "steps": 6}  # fmt: skip
CURVES = {
    "samples": [{"prompts": count} for count in (4, 8, 16, 32)],
    "response_tokens": [{"response_tokens": count} for count in (16, 32, 64, 96)],
    "hidden": [{"hidden": width, "intermediate": 3 * width} for width in (64, 128, 256, 384)],
    "ranks": [{"ranks": count} for count in (1, 2, 4)],
}


def measure(changes: dict) -> dict:
    """The median seconds of a step and of its phases, and its tokens."""
    ranks, size = changes.get("ranks", 1), BASE | {key: value for key, value in changes.items() if key != "ranks"}
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), size)
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
        command = [sys.executable, *launcher, "tools/train.py", *own_options(Path(folder), size, 1)]
        done = subprocess.run(command, cwd=ROOT, env=environment(1), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{changes}: training failed:\n{done.stderr[-4000:]}")
        found = own_figures(Path(folder), size)
    tokens = sum(found["tokens"]) / len(found["tokens"])
    return {"at": changes, "samples": size["prompts"] * SAMPLES, "tokens": round(tokens), "phases_s": found["phases_s"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", nargs="+", choices=CURVES, default=[*CURVES])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    curves: dict[str, list[dict]] = {}
    for name in args.curves:
        curves[name] = []
        for changes in CURVES[name]:
            curves[name].append(measure(changes))
            print(json.dumps({"curve": name} | curves[name][-1]), flush=True)
    result = {"commit": commit(), "cores": os.cpu_count(), "load": os.getloadavg()[0], "base": BASE, "curves": curves}
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

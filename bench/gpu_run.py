"""Whole runs of GCPO with the untrained quick-start model, stopped, resumed and exported, as JSON:

    python bench/gpu_run.py [--size tiny] [--data FOLDER] [--out FILE.json]

plain: padded, fp32, KL to a reference. packed: bf16 packs with shared prompts, everything offloaded while the engine
samples, recomputation, the distributed optimizer, checkpoints written while training goes on. An export is compared
with what transformers loads before it has its name. `--data`: what tools/prepare.py --skip-starter wrote; without it
that is done first. The exit code is 1 if a run fails, leaves out a step or skips an update.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, device_name

ALL = ["algorithm=gcpo", "algorithm/kl=k3", "evaluation.every_steps=0", "evaluation.at_start=false",
       "monitor.trackers=[]"]  # fmt: skip
VARIANTS = {
    "plain": [],
    "packed": [
        "model.dtype=bfloat16", "trainer.tokens_per_microbatch=2048", "trainer.share_prompts=true",
        "actor.offload=all", "parallel.recompute=full", "parallel.distributed_optimizer=true", "parallel.overlap=true",
        "trainer.async_checkpoints=true",
    ],
}  # fmt: skip
SIZES = {
    "tiny": (["packed"], 2, ["trainer.prompts_per_step=2", "trainer.samples_per_prompt=4"]),
    "full": (["plain", "packed"], 6, []),
}


def tool(name: str, *args: str) -> float:
    """Runs a tool; its seconds. RuntimeError with the end of what it said if it fails."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, f"tools/{name}.py", *args], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-1500:]
        raise RuntimeError(f"tools/{name}.py {' '.join(args)}: exit code {done.returncode}: {said}")
    return round(time.monotonic() - started, 2)


def measure(name: str, data: Path, folder: Path, steps: int, settings: list[str]) -> dict:
    """One variant: seconds of both launches, and what its steps say. RuntimeError if they are not what they must be."""
    options = [
        *ALL, *VARIANTS[name], *settings, f"prepared={data}", f"model.path={data}/init", f"run.folder={folder}",
        f"run.name={name}", f"trainer.steps={steps}", f"trainer.checkpoint_every_steps={steps // 2}",
    ]  # fmt: skip
    seconds = [tool("train", *options, f"trainer.stop_at_step={steps // 2}"), tool("train", *options)]
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    found = {
        "launches_s": seconds,
        "steps": [line["step"] for line in lines],
        "golden_injected": sum(line["groups/golden_injected"] for line in lines),
        "loss": [line["actor/loss"] for line in lines],
        "grad_norm": [line["actor/grad_norm"] for line in lines],
        "step_s": lines[-1]["time_s/step"],
        "memory_peak_gib": lines[-1]["perf/memory_peak_gib"],
        "exported": sorted(path.name for path in (folder / name / "hf").iterdir()),
    }
    if problem := wrong(lines, steps):
        raise RuntimeError(f"{name}: {problem}: {found}")
    return found


def wrong(lines: list[dict], steps: int) -> str | None:
    """What is not as it must be in the metrics of a whole run."""
    if [line["step"] for line in lines] != list(range(1, steps + 1)):
        return "a step is missing or there twice"
    if any(line["actor/update_skipped"] for line in lines):
        return "an update was skipped"
    if not all(line["actor/loss"] is not None and math.isfinite(line["actor/loss"]) for line in lines):
        return "a loss is not finite"
    if not all(line["actor/grad_norm"] > 0 for line in lines):
        return "a step had no gradient, though golden answers give one"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    names, steps, settings = SIZES[args.size]
    result: dict = {"device": device_name(), "runs": {}, "errors": {}}
    with tempfile.TemporaryDirectory() as mine:
        data = (args.data or Path(mine) / "data").resolve()
        if args.data is None:
            tool("prepare", "--out", str(data), "--skip-starter")
        for name in names:
            try:
                result["runs"][name] = measure(name, data, Path(mine), steps, settings)
            except (RuntimeError, OSError, KeyError) as error:  # the next one is still of interest
                result["errors"][name] = f"{type(error).__name__}: {error}"
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    if result["errors"]:
        sys.exit("error: " + "; ".join(result["errors"].values()))


if __name__ == "__main__":
    main()

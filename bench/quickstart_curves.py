"""The curves of the README: the quick-start task with every algorithm and several seeds.

    python bench/quickstart_curves.py [--seeds 31 32 ...] [--out docs/results] [--side-by-side 2]

For each seed: data and starter (tools/prepare.py), then one run of tools/train.py per line of RUNS from that starter,
one process each, evaluated every 10 steps. Runs that are finished are not run again. Writes OUT/quickstart.json
(every figure, the commit, the versions), OUT/quickstart.md and OUT/quickstart.png.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEEDS = range(31, 41)  # none was looked at while the settings were chosen


@dataclass(frozen=True)
class Kind:
    """A line of the table: how it is called, and the options of its runs."""

    label: str
    options: tuple[str, ...]
    colour: str
    style: str = "-"


# With bf16 products allowed, oneDNN multiplies in place of MKL. It leaves matrices as small as these in fp32, and
# rounds otherwise: what another processor does. The draws of tokens part after 35 steps or more, on some seeds never.
RUNS = {
    "gcpo": Kind("GCPO", ("algorithm=gcpo",), "#c9820a"),
    "gcpo_kernels": Kind(
        "GCPO, by other kernels", ("algorithm=gcpo", "parallel.cpu_products=bfloat16"), "#8a5a00", ":"
    ),
    "grpo": Kind("GRPO", ("algorithm=grpo",), "#3366aa"),
    "sft": Kind("supervised on the same golden answers (control)", ("algorithm=sft",), "#999999", "--"),
}


def train(seed: int, name: str) -> list[dict]:
    """One run, or what it left behind; the evaluations as {'step', 'hard', 'easy'}."""
    folder, kind = ROOT / "runs/curves", RUNS[name]
    name = f"{name}-seed{seed}"
    run("tools/train.py", *kind.options, f"seed={seed}", f"run.folder={folder}", f"run.name={name}")
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    return [
        {"step": line["step"], "hard": line["val/hard/avg@1"], "easy": line["val/easy/avg@1"]}
        for line in lines
        if "val/hard/avg@1" in line
    ]


def prepare(seed: int) -> None:
    run("tools/prepare.py", "--seed", str(seed), "--out", f"prepared/carry-seed{seed}")


def run(*command: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")


def plot(results: dict, out: Path) -> None:
    """Held-out accuracy on hard and easy problems: the mean over seeds, and a line for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    for axis, kind in zip(axes, ("hard", "easy"), strict=True):
        for name, by_seed in results.items():
            drawn = RUNS[name]
            curves = [[point[kind] for point in points] for points in by_seed.values()]
            steps = [point["step"] for point in next(iter(by_seed.values()))]
            for curve in curves:
                axis.plot(steps, curve, color=drawn.colour, alpha=0.25, linewidth=0.8)
            mean = [sum(values) / len(values) for values in zip(*curves, strict=True)]
            axis.plot(steps, mean, drawn.style, color=drawn.colour, linewidth=2.2, label=drawn.label)
        axis.set_title(f"held-out {kind} problems")
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("greedy accuracy")
    axes[0].set_ylim(-0.02, 1.02)
    axes[1].legend(loc="lower right", fontsize=8)
    figure.suptitle(
        f"Quick-start task: mean of {len(next(iter(results.values())))} seeds, thin lines are seeds", fontsize=10
    )
    figure.tight_layout()
    figure.savefig(out / "quickstart.png", dpi=130)


def table(results: dict) -> str:
    """Markdown: the last evaluation of every run, mean and range over the seeds."""
    seeds = sorted(next(iter(results.values())), key=int)
    last = next(iter(next(iter(results.values())).values()))[-1]["step"]
    lines = [f"Held-out greedy accuracy at step {last}, mean (worst to best) of seeds {seeds[0]} to {seeds[-1]}:", ""]
    lines += ["| algorithm | hard | easy |", "|---|---|---|"]
    for name, by_seed in results.items():
        ends = {kind: [by_seed[seed][-1][kind] for seed in seeds] for kind in ("hard", "easy")}
        cells = (f"{sum(x) / len(x):.2f} ({min(x):.2f} to {max(x):.2f})" for x in ends.values())
        lines.append(f"| {RUNS[name].label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[*SEEDS])
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results")
    parser.add_argument("--side-by-side", type=int, default=2, help="runs at the same time, one core each")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(args.side_by_side) as pool:
        list(pool.map(prepare, args.seeds))
        jobs = {(a, s): pool.submit(train, s, a) for s in args.seeds for a in RUNS}
        results = {a: {str(s): jobs[a, s].result() for s in args.seeds} for a in RUNS}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    versions = {name: version(name) for name in ("torch", "megatron-core", "transformers")}
    about = {"commit": commit, "versions": versions, "results": results}
    (args.out / "quickstart.json").write_text(json.dumps(about, indent=1) + "\n")
    (args.out / "quickstart.md").write_text(table(results))
    plot(results, args.out)
    print(table(results))


if __name__ == "__main__":
    main()

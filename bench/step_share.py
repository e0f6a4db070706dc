"""What of a step is neither the model nor the optimizer, as JSON.

    python bench/step_share.py [--size 4.7M] [--threads 1] [--out bench/results/step_share.json]

A run of bench/versus_trl.py's own side, in this process. The model: passes over micro-batches (layers, output layer,
loss, gradients) and the engine's over prompts and tokens. The optimizer: its step. The framework is all the rest of a
step: drawing tokens, decoding text, grading, dealing, micro-batches, weights to the engine, metrics, records.
"""

import argparse
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from unittest import mock

import versus_trl
from common import ROOT, commit

PARTS = {
    "model": [
        ("gcpo_mcore.actor.forward_pass", "GradientPass", "run"),
        ("gcpo_mcore.actor.forward_pass", "LogProbPass", "run"),
        ("gcpo_mcore.rollout.decoder", "Decoder", "prefill"),
        ("gcpo_mcore.rollout.decoder", "Decoder", "step"),
    ],
    "optimizer": [("gcpo_mcore.actor.optimizer", "Stepper", "step")],
}


def clocked(seconds: Counter, part: str, method):
    """`method`, whose seconds are added to `part`."""

    def run(*args, **kwargs):
        started = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds[part] += time.perf_counter() - started

    return run


def measure(name: str, threads: int) -> dict:
    """The shares of the median step of a run of this size."""
    from gcpo_mcore.commands import train
    from gcpo_mcore.run.trainer import Trainer

    size, seconds, steps = versus_trl.SIZES[name], Counter(), []

    def step(self):
        seconds.clear()
        started = time.perf_counter()
        result = train_step(self)
        steps.append(dict(seconds) | {"step": time.perf_counter() - started})
        return result

    with tempfile.TemporaryDirectory() as folder:
        versus_trl.make_files(Path(folder), size)
        options = versus_trl.own_options(Path(folder), size, threads)
        train_step = Trainer.train_step
        patches = [mock.patch.object(Trainer, "train_step", step)]
        for part, methods in PARTS.items():
            for module, owner, method in methods:
                of = getattr(importlib.import_module(module), owner)
                patches.append(mock.patch.object(of, method, clocked(seconds, part, getattr(of, method))))
        for patch in patches:
            patch.start()
        sys.argv = ["train.py", *options]
        if code := train.main():
            raise SystemExit(code)
    kept = steps[versus_trl.WARM_UP_STEPS :]
    shares = [1 - sum(each[part] for part in PARTS) / each["step"] for each in kept]
    medians = {part: round(statistics.median(each[part] for each in kept), 4) for part in ("step", *PARTS)}
    share = {"median": statistics.median(shares), "min": min(shares), "max": max(shares)}
    return {"size": name, "threads": threads, "s": medians, "framework_share": share}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=versus_trl.SIZES, default="4.7M")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    os.environ |= versus_trl.environment(args.threads)
    os.chdir(ROOT)
    result = {"commit": commit(), "load": os.getloadavg()[0], **measure(args.size, args.threads)}
    print(json.dumps(result))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""An update alone beside plain transformers with torch's fused AdamW, padded: as JSON.

    python bench/update.py [--threads 1 2] [--rounds 4] [--out bench/results/update_cpu.json]

The same model (4.7M), rows and loss, fp32 on a CPU; the two take turns in one process for each number of threads.
even: 64 rows of 128 tokens, padded as they are. ragged: 16 to 128 tokens (log-spaced), packed. shared: a prompt of 64
tokens before each response of 64, eight responses a prompt, computed once. First the gradients' norms are compared: the
bench stops if they differ. At the end the same with products of bf16 (parallel.cpu_products): seconds and errors.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import commit
from versus_trl import SIZES, environment, make_files

from gcpo_mcore.actor import hf_mapping
from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.config import ModelConfig
from gcpo_mcore.actor.layout import check_layout
from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.base import platform
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.batch import Batch, UpdateBatch
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.objective.algorithm import Algorithm
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import process_group
from gcpo_mcore.samples import Group, Prompt, Sample

ROWS, SAMPLES, LONGEST, SAME_NORM = 64, 8, 128, 1e-4
CASES = {  # prompt tokens, the shortest row's, how ours cuts them
    "even": (32, LONGEST, {"tokens": None, "shares_prompts": False}),
    "ragged": (8, LONGEST // 8, {"tokens": ROWS * LONGEST, "shares_prompts": False}),
    "shared": (64, LONGEST, {"tokens": None, "shares_prompts": True}),
}


def make_batch(prompt_tokens: int, shortest: int) -> Batch:
    """Rows of up to LONGEST tokens, log-spaced from the shortest; right and wrong in turn."""
    rng = np.random.default_rng(0)
    lengths = rng.permutation(np.geomspace(shortest, LONGEST, ROWS).round().astype(int))
    groups = []
    for g, own in enumerate(lengths.reshape(-1, SAMPLES)):
        prompt = Prompt(str(g), "x", "", rng.integers(2, SIZES["4.7M"]["vocabulary"], prompt_tokens).tolist(), "")
        rows = [rng.integers(2, SIZES["4.7M"]["vocabulary"], n - prompt_tokens).tolist() for n in own]
        groups.append(Group(prompt, [Sample(i, row, "", reward=float(i % 2)) for i, row in enumerate(rows)]))
    return Batch.of(groups)


class Plain:
    """transformers' model and torch's fused AdamW."""

    def __init__(self, folder: str):
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6, fused=True)

    def update(self, rows: UpdateBatch) -> float:
        """One step on the padded rows, one micro-batch; the gradient's norm."""
        lengths = [len(p) + len(r) for p, r in zip(rows.prompt_ids, rows.response_ids, strict=True)]
        ids, seen = torch.zeros(2, len(rows), max(lengths), dtype=torch.int64)
        weight = torch.zeros(ids.shape)
        for i, (prompt, response) in enumerate(zip(rows.prompt_ids, rows.response_ids, strict=True)):
            ids[i, : lengths[i]] = torch.tensor([*prompt, *response])
            seen[i, : lengths[i]] = 1
            own = rows.advantage[i, : len(response)] * rows.loss_weight[i, : len(response)]
            weight[i, len(prompt) : lengths[i]] = own
        logits = self.model(ids, attention_mask=seen).logits[:, :-1]
        logp = logits.log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
        (-(weight[:, 1:] * (logp - logp.detach()).exp()).sum()).backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm


def own_update(actor: Actor, algorithm: Algorithm, rows: UpdateBatch) -> float:
    """One step of the actor; the gradient's norm."""
    return actor.update(rows, algorithm.loss, 0, 1)[0]["actor/grad_norm"]


def measure(folder: Path, rounds: int) -> dict:
    """The cases in turn, with this process's threads."""
    make_files(folder, SIZES["4.7M"])
    config = load_config(["algorithm=grpo", "algorithm/kl=off"])
    arch = read_architecture(str(folder / "model"))
    layout = check_layout(config.parallel, arch)
    start_parallel(layout, seed=0)
    actor = Actor(
        ModelConfig(path=str(folder / "model"), dtype="float32"), arch, config.parallel, layout, config.optimizer,
        temperature=1.0, sequences_per_microbatch=ROWS, tokens_per_microbatch=None,
    )  # fmt: skip
    plain, found = Plain(str(folder / "model")), []
    for name, (prompt_tokens, shortest, cut) in CASES.items():
        batch = make_batch(prompt_tokens, shortest)
        actor.cut = replace(actor.cut, **cut)
        old_logp = actor.score(batch)
        weighed, _ = config.algorithm.weigh(replace(batch, rollout_logp=old_logp).scored(old_logp))
        rows, _ = config.algorithm.begin_update(weighed, old_logp, 0.0)
        seconds: dict[str, list[float]] = {"gcpo_mcore": [], "transformers": []}
        ways = {
            "gcpo_mcore": partial(own_update, actor, config.algorithm, rows),
            "transformers": partial(plain.update, rows),
        }
        for number in range(rounds + 1):
            norms = []
            for who, update in ways.items():
                started = time.perf_counter()
                norms.append(update())
                seconds[who] += [time.perf_counter() - started] * (number > 0)
            # Later ones are of weights that have gone two ways.
            if not found and number == 0 and abs(norms[0] - norms[1]) > SAME_NORM * norms[1]:
                raise SystemExit(f"{name}: gradient norms {norms[0]} and {norms[1]}: not the same update")
        ratios = [a / b for a, b in zip(seconds["gcpo_mcore"], seconds["transformers"], strict=True)]
        found.append(
            {"case": name, "threads": torch.get_num_threads()}
            | {f"{who}_s": statistics.median(each) for who, each in seconds.items()}
            | {"ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}}
        )
    return {"cases": found, "products": rounded_products(actor, config.algorithm, batch, rows, rounds)}


def rounded_products(actor: Actor, algorithm: Algorithm, batch: Batch, rows: UpdateBatch, rounds: int) -> dict | None:
    """parallel.cpu_products=bfloat16 beside float32, same weights: seconds of a backward pass, the differences of
    log-probs in nats, and the gradient's relative one. None where the processor has none."""
    seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    logp, gradient = {}, {}
    for number in range(rounds + 1):
        for products, taken in seconds.items():
            try:
                platform.set_products(products)
            except UserError:
                return None
            logp[products] = actor.score(batch)
            started = time.perf_counter()
            actor.backward(rows, algorithm.loss)
            taken += [time.perf_counter() - started] * (number > 0)
            exported = hf_mapping.export(actor.stage().chunks, actor.arch, lambda p: p.main_grad)
            gradient[products] = torch.cat([g.double().flatten() for _, g in exported])
    platform.set_products("float32")
    apart = (logp["bfloat16"] - logp["float32"]).abs()[rows.mask.bool()]
    exact = gradient["float32"]
    return {
        "threads": torch.get_num_threads(),
        "backward_s": {products: statistics.median(taken) for products, taken in seconds.items()},
        "logp_difference": {"mean": float(apart.mean()), "max": float(apart.max())},
        "gradient_relative_difference": float((gradient["bfloat16"] - exact).norm() / exact.norm()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--here", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        platform.keep_memory()
        with tempfile.TemporaryDirectory() as folder, process_group(args.here, deadline_s=600):
            print(json.dumps(measure(Path(folder), args.rounds)))
        return
    results, products = [], []
    for threads in args.threads:
        command = [sys.executable, __file__, "--here", str(threads), "--rounds", str(args.rounds)]
        done = subprocess.run(command, env=environment(threads), stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        results += found["cases"]
        products.append(found["products"])
    for result in [*results, *products]:
        print(json.dumps(result))
    if args.out:
        whole = {"commit": commit(), "load": os.getloadavg()[0], "results": results, "products": products}
        args.out.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()

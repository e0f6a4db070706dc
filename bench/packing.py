"""Packed against padded micro-batches: one update of sequences whose lengths differ up to 1:8.

    python bench/packing.py [--hidden 256 --layers 4 --rows 32 --longest 512 --repeats 5]

Both ways in turn, in one process, on the same batch: seconds of forward and backward (median), their ratio, and the
difference of loss and gradient. One line of JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace

import numpy as np
import torch

from gcpo_mcore.actor import hf_mapping
from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.config import ALL_WEIGHTS, ModelConfig
from gcpo_mcore.actor.layout import check_layout
from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.batch import Batch
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import process_group
from gcpo_mcore.samples import Group, Prompt, Sample


def make_model(folder: str, hidden: int, layers: int) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=1024, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128, intermediate_size=hidden * 3, max_position_embeddings=4096,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)


def make_batch(rows: int, longest: int) -> Batch:
    """Total lengths spread evenly on a logarithmic scale from an eighth of `longest` to `longest`."""
    rng = np.random.default_rng(0)
    groups = []
    for i, length in enumerate(np.geomspace(longest / 8, longest, rows).astype(int)):
        ids = rng.integers(0, 1024, length).tolist()
        groups.append(Group(Prompt(str(i), "x", "", ids[:16], ""), [Sample(0, ids[16:], "", reward=float(i % 2))]))
    return Batch.of(groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("hidden", 256), ("layers", 4), ("rows", 32), ("longest", 512), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    config = load_config(["algorithm=grpo", "algorithm/kl=off", "algorithm/advantage=none"])
    with tempfile.TemporaryDirectory() as folder, process_group(1, deadline_s=600):
        make_model(folder, args.hidden, args.layers)
        arch = read_architecture(folder)
        layout = check_layout(config.parallel, arch)
        start_parallel(layout, seed=0)
        actor = Actor(
            ModelConfig(path=folder, dtype="float32", adapter=ALL_WEIGHTS), arch, config.parallel, layout,
            config.optimizer, temperature=1.0, sequences_per_microbatch=4, tokens_per_microbatch=None,
        )  # fmt: skip
        batch = make_batch(args.rows, args.longest)
        old_logp = actor.score(batch)
        weighed, _ = config.algorithm.weigh(replace(batch, rollout_logp=old_logp).scored(old_logp))
        update, _ = config.algorithm.begin_update(weighed, old_logp, 0.0)
        seconds: dict[str, list[float]] = {"padded": [], "packed": []}
        results = {}
        for _ in range(args.repeats):
            for way, tokens in (("padded", None), ("packed", 4 * args.longest)):
                actor.cut = replace(actor.cut, tokens=tokens)
                start = time.perf_counter()
                loss = actor.backward(update, config.algorithm.loss)[0]["actor/loss"]
                seconds[way].append(time.perf_counter() - start)
                exported = hf_mapping.export(actor.stage().chunks, arch, lambda p: p.main_grad)
                results[way] = (loss, torch.cat([g.double().flatten() for _, g in exported]))
        median = {way: statistics.median(s) for way, s in seconds.items()}
        (loss, gradient), (packed_loss, packed_gradient) = results["padded"], results["packed"]
        print(
            json.dumps(
                {
                    **vars(args),
                    "tokens": sum(len(p) + len(r) for p, r in zip(batch.prompt_ids, batch.response_ids, strict=True)),
                    "padded_tokens": args.rows * args.longest,
                    "padded_s": round(median["padded"], 3),
                    "packed_s": round(median["packed"], 3),
                    "padded_over_packed": round(median["padded"] / median["packed"], 3),
                    "loss_difference": abs(loss - packed_loss),
                    "gradient_relative_difference": float((gradient - packed_gradient).norm() / gradient.norm()),
                }
            )
        )


if __name__ == "__main__":
    main()

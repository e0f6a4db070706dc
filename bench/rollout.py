"""SGLang as the engine: correctness, weight syncs, memory freed, decoding, as JSON.

    python bench/rollout.py --out small.json              # a small model on a CPU server (make sglang-cpu)
    python bench/rollout.py --size 1.5b --concurrency 256 --tokens 512 --bandwidth-gb-s 4800 --out large.json \\
        rollout=sglang rollout.memory_saver=true

One colocated server with a model of random weights. First the server's log-probs after a sync are compared with
transformers' on the same device; the bench stops if they differ. Then: seconds and GB/s of a sync (median of
`--repeats`), GPU memory before and after the server rests, and tokens/s of decoding `--concurrency` responses of
`--tokens` each, with the share of the bandwidth's limit that this is (weights and cache read once a step).
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import SIZES, commit, device_name, make_model

from gcpo_mcore.actor.hf_mapping import HfWeights
from gcpo_mcore.base import platform
from gcpo_mcore.base.registry import engines
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.rollout.engine import FixedWeights, Request
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import process_group
from gcpo_mcore.samples import Prompt

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}  # nats; bf16: kernels of different order of summation


def gpu_memory_gib() -> float | None:
    """In use on this GPU by all processes."""
    if not platform.HAS_CUDA:
        return None
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**30


def requests(vocabulary: int, count: int) -> list[Request]:
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(2, vocabulary, (-(-count // 8), 16), generator=generator).tolist()
    return [Request(Prompt(f"p:{i // 8}", "p", "", prompts[i // 8], ""), i % 8, i) for i in range(count)]


def difference(folder: str, dtype: str, asked: list[Request], samples) -> float:
    """Largest difference to transformers' log-probs over the first samples."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(platform.device()).eval()
    worst = 0.0
    for request, sample in list(zip(asked, samples, strict=True))[:16]:
        prompt, response = request.prompt.token_ids, sample.response_ids.tolist()
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response], device=platform.device())).logits[0].float()
        logp = logits.log_softmax(-1)[len(prompt) - 1 : -1].cpu()
        mine = logp.gather(1, torch.tensor(response)[:, None])[:, 0]
        worst = max(worst, float((mine - torch.from_numpy(sample.rollout_logp)).abs().max()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", default=[])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bandwidth-gb-s", type=float)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    dtype = "bfloat16" if args.size == "1.5b" else "float32"
    with tempfile.TemporaryDirectory() as folder:
        make_model(folder, args.size, dtype)
        config = load_config(
            [
                *(args.overrides or ["rollout=sglang_cpu"]),
                "rollout.start_servers=1",
                f"rollout.requests_per_server={args.concurrency}",
                f"rollout.sampling.max_response_tokens={args.tokens}",
                f"rollout.log_folder={folder}/logs",
                "+rollout.arguments.skip-tokenizer-init=true",
            ]
        ).rollout
        args.out.write_text(json.dumps(measure(args, folder, dtype, config), indent=1))
        print(args.out.read_text())


def measure(args, folder: str, dtype: str, config) -> dict:
    arch = read_architecture(folder)
    read = HfWeights(folder, arch)
    weights = {name: read(name).to(platform.device()) for name in read.names()}
    size = sum(tensor.nbytes for tensor in weights.values())
    found: dict = {
        "commit": commit(),
        "device": device_name(),
        "model": args.size,
        "weights_gb": size / 1e9,
        "transport": config.transport,
    }
    with process_group(1, 1800):
        started = time.monotonic()
        engine = engines.get("sglang")(config, folder, dtype, [1], str)
        with contextlib.closing(engine):
            found["start_s"] = time.monotonic() - started
            found["sglang"] = engine.fleet.ready()[0].info().release
            version = 0
            engine.update_weights(FixedWeights(version, weights.items))
            asked = requests(arch.vocabulary, args.concurrency)
            samples = engine.generate(asked, config.sampling)
            found["logp_abs_diff_max"] = difference(folder, dtype, asked, samples)
            if found["logp_abs_diff_max"] > TOLERANCE[dtype]:
                raise SystemExit(f"the server's log-probs differ from transformers' by {found['logp_abs_diff_max']}")
            syncs = []
            for version in range(1, args.repeats + 1):
                started = time.monotonic()
                engine.update_weights(FixedWeights(version, weights.items))
                syncs.append(time.monotonic() - started)
            found["sync_s"] = statistics.median(syncs)
            found["sync_gb_per_s"] = size / found["sync_s"] / 1e9
            found["memory_gib_serving"] = gpu_memory_gib()
            if config.rests:
                engine.rest()
                found["memory_gib_resting"] = gpu_memory_gib()
                engine.update_weights(FixedWeights(version + 1, weights.items))
            speeds = []
            for _ in range(3):
                started = time.monotonic()
                samples = engine.generate(asked, config.sampling)
                speeds.append(sum(s.tokens for s in samples) / (time.monotonic() - started))
            found["decode_tokens_per_s"] = statistics.median(speeds)
            if args.bandwidth_gb_s:
                token = 2 * arch.layers * arch.kv_heads * arch.head_dim * next(iter(weights.values())).element_size()
                a_step = size + args.concurrency * (16 + args.tokens / 2) * token
                limit = args.bandwidth_gb_s * 1e9 / a_step * args.concurrency
                found["decode_share_of_bandwidth_limit"] = found["decode_tokens_per_s"] / limit
    return found


if __name__ == "__main__":
    main()

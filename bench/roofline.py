"""What a step would take on 8 to 1,024 GPUs: a plan on paper, from the code's own sizes and a few constants.

    python bench/roofline.py [--models qwen2.5-1.5b ...] [--gpus 8 64 256 1024] [--case 512x8x4096] [--markdown]

NOTHING HERE WAS RUN. Memory is `gcpo_mcore.sizing.estimate`'s, operations are `gcpo_mcore.hf.flops`', lengths are
bench/control_path.py's. The device is an H100 SXM by its data sheet, the network 400 Gb/s for each GPU; the shares of
these that are reached are assumed (`Device`). The actor and the servers share every GPU and take turns.

    score, update   operations / (GPUs x peak x MFU); full recompute adds a forward pass
    rollout         each server, of the number of GPUs that makes it quickest, decodes as many sequences at once as its
                    memory has room for; a token of all of them costs reading the weights and their keys and values.
                    Then the longest response goes on alone
    sync            the whole model, once over the network into every server
    gradients       reduce-scatter in fp32 and all-gather in bf16 of a rank's parameters, not hidden
    bookkeeping     fitted to what bench/control_path.py measured
"""

import argparse
import math
from dataclasses import dataclass

import numpy as np
from control_path import lengths_of

from gcpo_mcore.base.platform import PEAK_FLOPS
from gcpo_mcore.hf.architecture import Architecture
from gcpo_mcore.hf.flops import forward_flops, training_flops
from gcpo_mcore.monitor.tables import print_results
from gcpo_mcore.run.load import load_config
from gcpo_mcore.sizing.estimate import GIB, PHASES, Estimate, estimate_run

PROMPT_TOKENS = 256
ACTIVITY = PHASES[1:]  # while the actor has the device
BYTES = 2  # bf16
SERVERS = (1, 2, 4, 8)  # GPUs of one
BOOKKEEPING_S_PER_TOKEN, BOOKKEEPING_S_PER_ROW = 0.3e-6, 10e-6  # of a rank's own tokens; of all rows
# From the least splitting to the most; the first that fits is taken.
LAYOUTS = [
    (tensor, pipeline, recompute)
    for tensor, pipeline in ((1, 1), (2, 1), (4, 1), (8, 1), (8, 2))
    for recompute in ("selective", "full")
]


@dataclass(frozen=True)
class Device:
    """An H100 SXM, and what of it is taken to be reached."""

    gib: float = 80.0
    reserve_gib: float = 6.0
    peak_flops: float = PEAK_FLOPS["H100"]["bfloat16"]
    memory_bytes_per_s: float = 3.35e12
    network_bytes_per_s: float = 50e9  # 400 Gb/s
    mfu: float = 0.35  # of training and scoring: assumed, between the 30% (1.5B) and 44% (7B) of a count of kernels
    memory_share: float = 0.7
    network_share: float = 0.7
    launch_s: float = 2e-3  # of one decoded token: launches, sampling, the scheduler
    reduce_s: float = 15e-6  # one all-reduce of a few KiB between the GPUs of a server; two a layer


H100 = Device()


def planned(model: str, gpus: int, case: str, device: Device = H100) -> dict[str, object]:
    """A row of the table; without times where no layout fits."""
    prompts, samples, mean = map(int, case.split("x"))
    for tensor, pipeline, recompute in LAYOUTS:
        if gpus % (tensor * pipeline):
            continue
        estimate = _estimate(model, gpus, prompts, samples, mean, tensor, pipeline, recompute)
        needed = max(estimate.phase_gib[phase] for phase in ACTIVITY)
        if needed <= device.gib - device.reserve_gib:
            lengths = lengths_of(prompts * samples, mean)
            arch = estimate.arch
            possible = [n for n in SERVERS if arch.heads % n == 0 and gpus % n == 0]
            server = min(possible, key=lambda n: rollout_s(arch, n, gpus // n, lengths, device))
            times = _times(estimate, gpus, server, lengths, recompute, device)
            layout = f"TP{tensor}" + (f" PP{pipeline}" if pipeline > 1 else "")
            return {
                "model": model, "GPUs": gpus, "layout": f"{layout}, {recompute}", "GiB": round(needed, 1),
                "server": f"TP{server}",
                **{f"{name} s": round(s, 1 if s >= 1 else 2) for name, s in times.items()},
                "tokens/s/GPU": round(float(lengths.sum()) / times["step"] / gpus),
            }  # fmt: skip
    return {"model": model, "GPUs": gpus, "layout": "none fits"}


def _estimate(
    model: str, gpus: int, prompts: int, samples: int, mean: int, tensor: int, pipeline: int, recompute: str
) -> Estimate:
    longest = 4 * mean
    config = load_config([
        f"model={model}", "rollout=sglang", f"trainer.prompts_per_step={prompts}",
        f"trainer.samples_per_prompt={samples}", f"data.max_prompt_tokens={PROMPT_TOKENS}",
        f"rollout.sampling.max_response_tokens={longest}", "evaluation.sampling.max_response_tokens=1024",
        f"trainer.tokens_per_microbatch={longest + PROMPT_TOKENS}", f"parallel.tensor={tensor}",
        f"parallel.pipeline={pipeline}", f"parallel.sequence={str(tensor > 1).lower()}",
        f"parallel.recompute={recompute}", "parallel.distributed_optimizer=true", "actor.offload=all",
        "rollout.memory_saver=true", "algorithm=gcpo",
    ])  # fmt: skip
    return estimate_run(config, gpus)


def _times(
    estimate: Estimate, gpus: int, server: int, lengths: np.ndarray, recompute: str, device: Device
) -> dict[str, float]:
    arch, layout = estimate.arch, estimate.layout
    whole = (lengths + PROMPT_TOKENS).tolist()
    forward = forward_flops(arch, whole)
    speed = gpus * device.peak_flops * device.mfu
    mine = arch.parameters / (layout.tensor * layout.pipeline)
    network = device.network_bytes_per_s * device.network_share
    shares = (layout.data - 1) / layout.data
    times = {
        "rollout": rollout_s(arch, server, gpus // server, lengths, device),
        "sync": BYTES * arch.parameters / network,
        "score": forward / speed,
        "update": (training_flops(arch, whole) + (forward if recompute == "full" else 0)) / speed,
        "gradients": mine * (4 + BYTES) * shares / network,
        "bookkeeping": BOOKKEEPING_S_PER_TOKEN * sum(whole) / layout.data + BOOKKEEPING_S_PER_ROW * len(whole),
    }
    return {**times, "step": sum(times.values())}


def rollout_s(arch: Architecture, tensor: int, servers: int, lengths: np.ndarray, device: Device) -> float:
    """Seconds until the last response is there, on so many servers of `tensor` GPUs; infinite if none has room."""
    sequences = max(len(lengths) / servers, 1.0)
    kv_bytes = 2 * BYTES * arch.layers * arch.kv_heads * arch.head_dim  # of a token
    weights = BYTES * arch.parameters
    room = tensor * (device.gib - device.reserve_gib) * GIB - weights
    if room <= 0 or servers < 1:
        return math.inf
    mean, longest = float(lengths.mean()), float(lengths.max())
    held = PROMPT_TOKENS + mean / 2  # of a sequence, on average while it is decoded
    at_once = min(sequences, max(room / (kv_bytes * (PROMPT_TOKENS + mean)), 1.0))

    def token_s(count: float, tokens: float) -> float:
        read = (weights + count * tokens * kv_bytes) / (tensor * device.memory_bytes_per_s * device.memory_share)
        multiplied = 2 * arch.parameters * count / (tensor * device.peak_flops * device.mfu)
        reduced = 2 * arch.layers * device.reduce_s if tensor > 1 else 0.0
        return max(read, multiplied) + reduced + device.launch_s

    bulk = sequences / at_once * mean * token_s(at_once, held)
    return bulk + (longest - mean) * token_s(1.0, longest)


def markdown(rows: list[dict[str, object]]) -> str:
    """The table as docs/scaling.md has it."""
    columns = list(max(rows, key=len))
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    lines += [
        "| " + " | ".join(f"{v:,}" if isinstance(v := row.get(c, ""), int) else str(v) for c in columns) + " |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["qwen2.5-1.5b", "qwen2.5-7b", "yi-1.5-34b"])
    parser.add_argument("--gpus", nargs="+", type=int, default=[8, 64, 256, 1024])
    parser.add_argument("--case", default="512x8x4096", help="prompts x samples x mean tokens (default: %(default)s)")
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    rows = [planned(model, gpus, args.case) for model in args.models for gpus in args.gpus]
    if args.markdown:
        print(markdown(rows))
    else:
        print_results("computed, not run", list(max(rows, key=len)), rows)


if __name__ == "__main__":
    main()

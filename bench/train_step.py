"""One training update of a real size: correctness, seconds, tokens/s, MFU, peak memory, as JSON.

    python bench/train_step.py --out results.json                     # a small size, as on a CPU
    python bench/train_step.py --size 1.5b --tokens 262144 --pack 16384 --out ...  # Qwen2.5-1.5B's shape, bf16

First the packed log-probs of the actor are compared with transformers' on the same device and, with CUDA, the attention
kernel for whole packs with a call per row, both ways: the bench stops if they differ. Then packed sequences of
`--length` tokens, `--tokens` in all, go through score and update (`--repeats` times after one to warm up; the median
counts), and once more with `--share-prompts`: then as before, and with each prompt behind which `--samples` responses
stand computed once. Tokens are those of prompts and responses; operations are those that are computed (each prompt as
often as it is, logits for response tokens), without what is computed twice. `--profile`: device time of one more update
by families of kernels. With torchrun, data parallel.
"""

import argparse
import json
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from common import SIZES, commit, default_dtype, device_name, make_model, synchronise
from torch.profiler import ProfilerActivity, profile

from gcpo_mcore.actor import groups
from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.config import ALL_WEIGHTS, ModelConfig
from gcpo_mcore.actor.cutting import split
from gcpo_mcore.actor.layout import check_layout
from gcpo_mcore.actor.logprobs import token_logprobs
from gcpo_mcore.actor.microbatch import MicroBatch
from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.actor.packed_attention import AttentionRows, all_at_once, one_by_one
from gcpo_mcore.base import platform
from gcpo_mcore.batch import Batch, UpdateBatch
from gcpo_mcore.hf.architecture import Architecture, read_architecture
from gcpo_mcore.hf.flops import BACKWARD, pass_flops
from gcpo_mcore.run.config import RunConfig
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import process_group
from gcpo_mcore.samples import Group, Prompt, Sample

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}  # nats; bf16: another order of summation, and layer by layer
COMPARED = 4  # rows
KERNEL_TOLERANCE = 0.02  # of the largest value: bf16 has 8 bits, and the two ways add up in different orders
# The first that a kernel's name (on a CPU: an operator's) matches counts.
FAMILIES = {
    "collectives": r"nccl|c10d|gloo",
    "attention": r"flash|fmha|attention",
    "matrix products": r"gemm|gemv|nvjet|cutlass|cublas|xmma|splitk|aten::(mm|addmm|bmm|baddbmm|_addmm)",
    "optimizer": r"adam|multi_tensor|_foreach|l2norm",
    "copies": r"memcpy|memset|copy|::cat|CatArray|::fill|::zero|FillFunctor",
    "indexing": r"index|gather|scatter|embedding|masked",
    "reductions and softmax": r"reduce|softmax|::sum|::amax|::mean|layer_norm|rms_norm|cunn",
    "elementwise": r"elementwise|vectorized|triton|aten::",
}


def make_batch(vocabulary: int, tokens: int, length: int, samples: int = 2) -> Batch:
    """Sequences of `length` tokens, an eighth of each the prompt; right and wrong in turn, `samples` to a group."""
    generator = torch.Generator().manual_seed(0)
    groups = []
    for g in range(max(tokens // length // samples, 1)):
        ids = torch.randint(0, vocabulary, (samples, length), generator=generator).tolist()
        prompt = ids[0][: length // 8]
        rows = [row[length // 8 :] for row in ids]
        group = [Sample(i, row, "", reward=float(i % 2), is_accurate=bool(i % 2)) for i, row in enumerate(rows)]
        groups.append(Group(Prompt(str(g), "x", "", prompt, ""), group))
    return Batch.of(groups)


def difference_to_transformers(folder: str, dtype: str, batch: Batch, logp: torch.Tensor) -> float:
    """Largest difference of the first rows' log-probs; not a number if one is not."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(platform.device()).eval()
    worst = torch.zeros(())
    for row in range(min(COMPARED, len(batch))):
        prompt, response = batch.prompt_ids[row], batch.response_ids[row]
        ids = torch.tensor([[*prompt, *response]], device=platform.device())
        with torch.no_grad():
            logits = model(ids).logits[0, len(prompt) - 1 : -1]
        targets = torch.from_numpy(response).long().to(logits.device)
        theirs = logits.float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
        worst = torch.maximum(worst, (logp[row, : len(response)] - theirs.cpu()).abs().max())
    return float(worst)


def kernel_difference(heads: int, kv_heads: int, head_dim: int, length: int) -> float | None:
    """Largest difference of the kernel for whole packs to a call per row, bf16, result and gradients, as a fraction of
    the largest value; None without CUDA. Ragged rows, some with more keys than queries (context parallelism)."""
    if not platform.HAS_CUDA:
        return None
    torch.manual_seed(0)
    sizes = [(length, length), (1, 1), (length // 3, length), (length // 2 + 1, length // 2 + 1), (7, 64)]
    queries, keys = (sum(n) for n in zip(*sizes, strict=True))
    shapes = [(queries, heads, head_dim), (keys, kv_heads, head_dim), (keys, kv_heads, head_dim)]
    inputs = [torch.randn(s, device=platform.device(), dtype=torch.bfloat16, requires_grad=True) for s in shapes]
    upstream = torch.randn(shapes[0], device=platform.device(), dtype=torch.bfloat16)
    found = []
    for attend in (all_at_once, one_by_one):
        result = attend(*inputs, AttentionRows(np.array(sizes), None, platform.device()), head_dim**-0.5)
        found.append([result, *torch.autograd.grad(result, inputs, upstream)])
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True))


def median_s(run: Callable[[], object], repeats: int) -> float:
    """Median of the seconds that `run` takes, after once to warm up."""
    taken = []
    for _ in range(repeats + 1):
        synchronise()
        start = time.perf_counter()
        run()
        synchronise()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def rows_and_logits(micro: MicroBatch) -> tuple[list[tuple[int, int]], int]:
    """What a micro-batch computes: queries and keys of each row, and the number of logits."""
    assert micro.packed is not None and micro.packed.rows is not None  # --pack is given
    return [(q, k) for q, k in micro.packed.rows.sizes.tolist()], len(micro.targets)


def computed_flops(arch: Architecture, micro_batches: list[MicroBatch]) -> float:
    """Operations of a forward pass over them."""
    return sum(pass_flops(arch, *rows_and_logits(micro)) for micro in micro_batches)


def head_s(actor: Actor, micro_batches: list[MicroBatch], repeats: int) -> float:
    """Seconds of an update's log-probs alone, from hidden states that are there, forward and backward."""
    weight = actor.stage().chunks[-1].head_weight.detach().requires_grad_()

    def run() -> None:
        for micro in micro_batches:
            hidden = torch.ones(len(micro.targets), weight.shape[1], dtype=weight.dtype, device=weight.device)
            logp, _ = token_logprobs(
                hidden.requires_grad_(), weight, micro.targets, actor.arch.vocabulary, actor.temperature,
                groups.tensor_group(), actor.logits_per_chunk,
            )  # fmt: skip
            torch.autograd.grad(logp.sum(), (hidden, weight))

    return median_s(run, repeats)


def family(name: str) -> str:
    """The family of a kernel."""
    return next((key for key, pattern in FAMILIES.items() if re.search(pattern, name, re.IGNORECASE)), "other")


def profiled(run: Callable[[], object]) -> dict:
    """Milliseconds by the clock and of all kernels, shares of the latter by family, the ten kernels that took most."""
    kind = ProfilerActivity.CUDA if platform.HAS_CUDA else ProfilerActivity.CPU  # both together would slow it down
    synchronise()
    start = time.perf_counter()
    with profile(activities=[kind], acc_events=True) as found:
        run()
        synchronise()
    wall_ms = (time.perf_counter() - start) * 1e3
    by_kernel: Counter[str] = Counter()
    for event in found.key_averages():
        is_kernel = event.device_type == torch.autograd.DeviceType.CUDA
        if is_kernel or not platform.HAS_CUDA:
            by_kernel[event.key] += (event.self_device_time_total if is_kernel else event.self_cpu_time_total) / 1e3
    by_family: Counter[str] = Counter()
    for name, ms in by_kernel.items():
        by_family[family(name)] += ms
    total = sum(by_kernel.values())
    return {
        "wall_ms": round(wall_ms, 2),
        "device_ms": round(total, 2),
        "share_by_family": {name: round(ms / total, 4) for name, ms in by_family.most_common()},
        "largest_ms": {name[:100]: round(ms, 2) for name, ms in by_kernel.most_common(10)},
    }


def measure(actor: Actor, batch: Batch, rows: UpdateBatch, loss, args: argparse.Namespace, dtype: str) -> dict:
    """Score and update of the batch, as the actor cuts it."""
    micro_batches = split(batch, actor.cut)
    forward = computed_flops(actor.arch, micro_batches)
    tokens, peak = sum(map(len, (*batch.prompt_ids, *batch.response_ids))), platform.peak_flops(dtype)
    platform.reset_phase_memory()

    def update() -> None:
        actor.update(rows, loss, 0, 1)

    found: dict = {
        "micro_batches": len(micro_batches),
        "tokens": tokens,
        "tokens_computed": sum(micro.tokens.numel() for micro in micro_batches),
    }
    for phase, run, flops in (
        ("score", lambda: actor.score(batch), forward),
        ("update", update, (1 + BACKWARD) * forward),
    ):
        seconds = median_s(run, args.repeats)
        found[phase] = {
            "s": round(seconds, 4),
            "tokens_per_s_per_device": round(tokens / seconds),
            "tflops_per_device": round(flops / seconds / 1e12, 4),
            "mfu": round(flops / seconds / peak, 4) if peak else None,
        }
    found["peak_memory_gib"] = round(platform.phase_memory_gib(), 3)
    found["head_share_of_update"] = round(head_s(actor, micro_batches, args.repeats) / found["update"]["s"], 4)
    if args.profile:
        found["profile"] = profiled(update)
    return found


def build(folder: str, dtype: str, config: RunConfig, pack: int) -> Actor:
    """The actor for the folder's model."""
    arch = read_architecture(folder)
    layout = check_layout(config.parallel, arch)
    start_parallel(layout, seed=0)
    return Actor(
        ModelConfig(path=folder, dtype=dtype, adapter=ALL_WEIGHTS), arch, config.parallel, layout, config.optimizer,
        temperature=1.0, sequences_per_microbatch=1, tokens_per_microbatch=pack,
    )  # fmt: skip


def checked(actor: Actor, folder: str, dtype: str, batch: Batch, args: argparse.Namespace) -> dict:
    """The differences that have to be small. SystemExit if one is not."""
    difference = difference_to_transformers(folder, dtype, batch, actor.score(batch))
    if not difference < TOLERANCE[dtype]:
        raise SystemExit(f"error: the actor's log-probs differ from transformers' by {difference:.1e} nats")
    kernel = kernel_difference(actor.arch.heads, actor.arch.kv_heads, actor.arch.head_dim, args.length)
    if kernel is not None and not kernel < KERNEL_TOLERANCE:
        raise SystemExit(f"error: attention of whole packs differs from row by row: {kernel:.1e} of the largest value")
    return {"logp_difference_to_transformers": difference, "kernel_difference_to_rows": kernel}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--dtype", choices=tuple(TOLERANCE), help="default: bfloat16 with CUDA, else float32")
    parser.add_argument("--tokens", type=int, default=8192, help="of an update")
    parser.add_argument("--length", type=int, default=1024, help="of a sequence")
    parser.add_argument("--samples", type=int, default=2, help="of a prompt")
    parser.add_argument("--pack", type=int, default=4096, help="tokens of a micro-batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--share-prompts", action="store_true", help="once more with each prompt computed once")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    args = parse()
    dtype = args.dtype or default_dtype()
    config = load_config(["algorithm=gspo", "optimizer.lr=1e-6"])
    with tempfile.TemporaryDirectory() as folder, process_group(None, deadline_s=1800):
        make_model(folder, args.size, dtype)
        actor = build(folder, dtype, config, args.pack)
        batch = make_batch(actor.arch.vocabulary, args.tokens, args.length, args.samples)
        result = {
            "device": device_name(),
            "torch": torch.__version__,
            "commit": commit(),
            "arguments": {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()},
            "dtype": dtype,
            "processes": dist.get_world_size(),
            "parameters": actor.arch.parameters,
            **checked(actor, folder, dtype, batch, args),
        }
        old_logp = actor.score(batch)
        weighed, _ = config.algorithm.weigh(replace(batch, rollout_logp=old_logp).scored(old_logp))
        rows, _ = config.algorithm.begin_update(weighed, old_logp, 0.0)
        result |= measure(actor, batch, rows, config.algorithm.loss, args, dtype)
        if args.share_prompts:
            actor.cut = replace(actor.cut, shares_prompts=True)
            result["shared_prompts"] = measure(actor, batch, rows, config.algorithm.loss, args, dtype)
        if dist.get_rank() == 0:
            print(json.dumps(result))
            if args.out:
                args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

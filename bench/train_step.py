"""One training update of a real size: correctness, seconds, tokens/s, MFU, peak memory, as JSON.

    python bench/train_step.py --out results.json                     # a small size, as on a CPU
    python bench/train_step.py --size 1.5b --tokens 262144 --out ...  # a Qwen2.5-1.5B shape with random weights, bf16

First the packed log-probs of the actor are compared with transformers' on the same device and, with CUDA, the attention
kernel for whole packs with a call per row, both ways: the bench stops if they differ. Then packed sequences of
`--length` tokens, `--tokens` in all, go through score and update (`--repeats` times after one to warm up; the median
counts). With torchrun, data parallel.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.config import ModelConfig
from gcpo_mcore.actor.layout import check_layout
from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.actor.packed_attention import AttentionRows, all_at_once, one_by_one
from gcpo_mcore.base import platform
from gcpo_mcore.batch import Batch
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.hf.flops import forward_flops, training_flops
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import process_group
from gcpo_mcore.samples import Group, Prompt, Sample

SIZES = {
    "small": {"vocab_size": 2048, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 768, "tie_word_embeddings": True},
    "1.5b": {"vocab_size": 151936, "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12,
             "num_key_value_heads": 2, "intermediate_size": 8960, "tie_word_embeddings": True},
}  # fmt: skip


def make_model(folder: str, size: str, dtype: str) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES[size], max_position_embeddings=32768, rope_theta=1e6))
    model.to(getattr(torch, dtype)).save_pretrained(folder)


def make_batch(vocabulary: int, tokens: int, length: int) -> Batch:
    """Sequences of `length` tokens, an eighth of each the prompt; right and wrong in turn, two to a group."""
    generator = torch.Generator().manual_seed(0)
    groups = []
    for g in range(max(tokens // length // 2, 1)):
        ids = torch.randint(0, vocabulary, (2, length), generator=generator).tolist()
        prompt = ids[0][: length // 8]
        samples = [Sample(i, row[length // 8 :], "", reward=float(i), is_accurate=bool(i)) for i, row in enumerate(ids)]
        groups.append(Group(Prompt(str(g), "x", "", prompt, ""), samples))
    return Batch.of(groups)


def difference_to_transformers(folder: str, dtype: str, batch: Batch, logp: torch.Tensor) -> float:
    """Largest difference of the first row's log-probs."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(platform.device()).eval()
    prompt, response = batch.prompt_ids[0], batch.response_ids[0]
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *response]], device=platform.device())).logits[0, len(prompt) - 1 : -1]
    targets = torch.from_numpy(response).long().to(logits.device)
    theirs = logits.float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    return float((logp[0, : len(response)] - theirs.cpu()).abs().max())


KERNEL_TOLERANCE = 0.02  # of the largest value: bf16 has 8 bits, and the two ways add up in different orders


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16 with CUDA, else float32")
    parser.add_argument("--tokens", type=int, default=8192, help="of an update")
    parser.add_argument("--length", type=int, default=1024, help="of a sequence")
    parser.add_argument("--pack", type=int, default=4096, help="tokens of a micro-batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    dtype = args.dtype or ("bfloat16" if platform.HAS_CUDA else "float32")
    config = load_config(["algorithm=gspo", "optimizer.lr=1e-6"])
    with tempfile.TemporaryDirectory() as folder, process_group(None, deadline_s=1800):
        make_model(folder, args.size, dtype)
        arch = read_architecture(folder)
        layout = check_layout(config.parallel, arch)
        start_parallel(layout, seed=0)
        actor = Actor(
            ModelConfig(path=folder, dtype=dtype), arch, config.parallel, layout, config.optimizer, temperature=1.0,
            sequences_per_microbatch=1, tokens_per_microbatch=args.pack,
        )  # fmt: skip
        batch = make_batch(arch.vocabulary, args.tokens, args.length)
        old_logp = actor.score(batch)
        difference = difference_to_transformers(folder, dtype, batch, old_logp)
        kernel = kernel_difference(arch.heads, arch.kv_heads, arch.head_dim, args.length)
        if kernel is not None and not kernel < KERNEL_TOLERANCE:
            raise SystemExit(f"attention of whole packs differs from row by row: {kernel:.1e} of the largest value")
        weighed, _ = config.algorithm.weigh(replace(batch, rollout_logp=old_logp).scored(old_logp))
        rows, _ = config.algorithm.begin_update(weighed, old_logp, 0.0)
        seconds: dict[str, list[float]] = {"score": [], "update": []}
        if platform.HAS_CUDA:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(args.repeats + 1):
            for phase, run in (
                ("score", lambda: actor.score(batch)),
                ("update", lambda: actor.update(rows, config.algorithm.loss, 0, 1)),
            ):
                _synchronise()
                start = time.perf_counter()
                run()
                _synchronise()
                seconds[phase].append(time.perf_counter() - start)
        lengths = [args.length] * len(batch)
        work = {"score": forward_flops(arch, lengths), "update": training_flops(arch, lengths)}
        peak = platform.peak_flops(dtype)
        result = {
            "device": torch.cuda.get_device_name() if platform.HAS_CUDA else "cpu",
            "torch": torch.__version__,
            "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
            **{key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()},
            "dtype": dtype,
            "processes": layout.world,
            "parameters": arch.parameters,
            "logp_difference_to_transformers": difference,
            "kernel_difference_to_rows": kernel,
            "peak_memory_gib": round(platform.memory_gib(), 3),
        }
        for phase, times in seconds.items():
            median = statistics.median(times[1:])
            rate = work[phase] / median / layout.world
            result[phase] = {
                "s": round(median, 4),
                "tokens_per_s_per_device": round(sum(lengths) / median / layout.world),
                "tflops_per_device": round(rate / 1e12, 4),
                "mfu": round(rate / peak, 4) if peak else None,
            }
        if dist.get_rank() == 0:
            print(json.dumps(result))
            if args.out:
                args.out.write_text(json.dumps(result, indent=1) + "\n")


def _synchronise() -> None:
    if platform.HAS_CUDA:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

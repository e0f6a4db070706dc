"""Where the time of an update on one H100 would go, on paper: microseconds a token, from operations and bytes.

    python bench/update_roofline.py [--models qwen2.5-1.5b qwen2.5-7b] [--packs 4096 16384]

NOTHING HERE WAS RUN. bf16, rows of 1,024 tokens, an eighth of them the prompt, no recompute. `plain` is torch without
kernels of its own for output layer, SwiGLU and rotary embedding. Products, attention and memory are taken to reach the
shares of a data sheet in the constants below. Left out: launches, host waits, the optimizer, messages.

    products      6 operations for each weight of the layers
    elementwise   bytes of SwiGLU, rotary embedding, norms, residuals
    attention     FlashAttention-2's operations, 2.5 times as many backward
    head          log-probs: products (logits twice: kept for the backward pass only if one chunk has all), bytes
    accumulation  gradients added up in fp32 after every pack
"""

import argparse

from gcpo_mcore.actor import fused_head, logprobs
from gcpo_mcore.base.platform import PEAK_FLOPS
from gcpo_mcore.hf.architecture import Architecture, read_architecture
from gcpo_mcore.hf.hub import config_folder
from gcpo_mcore.monitor.tables import print_results
from gcpo_mcore.run.load import load_config

PEAK = PEAK_FLOPS["H100"]["bfloat16"]
PRODUCTS, ATTENTION = 0.66 * PEAK, 0.35 * PEAK  # operations a second
MEMORY = 0.85 * 3.35e12  # bytes a second
LENGTH, RESPONSE = 1024, 7 / 8
BF16, FP32 = 2, 4
# Elements read and written, forward and backward together, for one of the layer's output.
SWIGLU, ROTARY = {"plain": 16, "fused": 8}, {"plain": 10, "fused": 4}
NORMS = 22  # two norms and two residuals of a layer
LOGIT_PASSES = {"plain": 33 * FP32, "fused": 3 * BF16}  # bytes a logit, beside what the products read and write
ACCUMULATION = 10  # bytes a weight: a bf16 gradient read, an fp32 sum read and written


def update_us(arch: Architecture, pack: int, way: str) -> dict[str, float]:
    """Microseconds a token by part."""
    rotated = (arch.heads + arch.kv_heads) * arch.head_dim
    head = arch.vocabulary * arch.hidden
    layers = arch.parameters - head * (1 if arch.tied_embeddings else 2)
    limit = fused_head.LOGITS_PER_CHUNK if way == "fused" else logprobs.LOGITS_PER_CHUNK
    chunk = min(limit // arch.vocabulary, pack * RESPONSE)
    sums = 3 * FP32 if way == "plain" else 2 * FP32  # of a chunk's gradient of the weight: product and sum, or in one
    elements = SWIGLU[way] * arch.intermediate + ROTARY[way] * rotated + NORMS * arch.hidden
    attention = arch.layers * 2 * LENGTH * arch.heads * arch.head_dim
    seconds = {
        "products": 6 * layers / PRODUCTS,
        "elementwise": arch.layers * elements * BF16 / MEMORY,
        "attention": 3.5 * attention / ATTENTION,
        "head": RESPONSE * (8 * head / PRODUCTS + (LOGIT_PASSES[way] * arch.vocabulary + sums * head / chunk) / MEMORY),
        "accumulation": ACCUMULATION * arch.parameters / pack / MEMORY,
    }
    total = sum(seconds.values())
    useful = 6 * (layers + RESPONSE * head) + 3 * attention
    found = {name: 1e6 * s for name, s in seconds.items()} | {"all": 1e6 * total}
    return found | {"head share": seconds["head"] / total, "MFU": useful / PEAK / total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["qwen2.5-1.5b", "qwen2.5-7b"])
    parser.add_argument("--packs", nargs="+", type=int, default=[4096, 16384])
    args = parser.parse_args()
    rows = []
    for model in args.models:
        arch = read_architecture(config_folder(load_config([f"model={model}"]).model.path))
        for pack in args.packs:
            for way in ("plain", "fused"):
                found = {name: round(value, 2) for name, value in update_us(arch, pack, way).items()}
                rows.append({"model": model, "pack": pack, "way": way, **found})
    print_results("us a token, computed, not run", list(rows[0]), rows)


if __name__ == "__main__":
    main()

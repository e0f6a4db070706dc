"""How many floating-point operations a model needs, by its architecture: the numerator of MFU.

A multiplication and an addition are two. Counted: every matrix product of attention (grouped queries, the causal half
of scores and values), of the MLP or of the experts that a token goes to with their router, and of the vocabulary head.
Left out: norms, rotary embedding, softmax, and whatever is computed twice (recomputation), as MFU is defined
(PaLM, arXiv 2204.02311, appendix B).
"""

from collections.abc import Iterable

from gcpo_mcore.hf.architecture import Architecture

BACKWARD = 2  # a backward pass has two products for each of the forward one's


def forward_flops(arch: Architecture, lengths: Iterable[int]) -> float:
    """Operations of one forward pass over sequences of `lengths` tokens, logits for every token."""
    lengths = list(lengths)
    queries = arch.heads * arch.head_dim
    attention = arch.hidden * (2 * queries + 2 * arch.kv_heads * arch.head_dim)
    if moe := arch.moe:
        mlp = moe.per_token * 3 * arch.hidden * moe.intermediate + arch.hidden * moe.count
    else:
        mlp = 3 * arch.hidden * arch.intermediate
    by_token = arch.layers * (attention + mlp) + arch.hidden * arch.vocabulary
    # Scores and values: two products of s x s, of which the causal mask needs the half.
    by_square = arch.layers * queries
    return float(sum(2 * by_token * s + 2 * by_square * s * s for s in lengths))


def training_flops(arch: Architecture, lengths: Iterable[int]) -> float:
    """Operations of forward and backward."""
    return (1 + BACKWARD) * forward_flops(arch, lengths)

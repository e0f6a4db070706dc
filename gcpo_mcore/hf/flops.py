"""How many floating-point operations a model needs, by its architecture: the numerator of MFU.

A multiplication and an addition are two. Counted: every matrix product of attention (grouped queries, the causal half
of scores and values), of the MLP or of the experts that a token goes to with their router, and of the vocabulary head
for the tokens that have logits (those that predict a response's).
Left out: norms, rotary embedding, softmax, and whatever is computed twice (recomputation), as MFU is defined
(PaLM, arXiv 2204.02311, appendix B).
"""

from collections.abc import Iterable

from gcpo_mcore.hf.architecture import Architecture

BACKWARD = 2  # a backward pass has two products for each of the forward one's


def forward_flops(arch: Architecture, lengths: Iterable[int], logits: int | None = None) -> float:
    """Operations of one forward pass over sequences of `lengths` tokens, with logits for so many tokens; None: all."""
    rows = [(s, s) for s in lengths]
    return pass_flops(arch, rows, sum(s for s, _ in rows) if logits is None else logits)


def training_flops(
    arch: Architecture, lengths: Iterable[int], logits: int | None = None, is_frozen: bool = False
) -> float:
    """Operations of forward and backward. is_frozen: an adapter is trained, whose own are left out; the gradients of
    the weights, half of a backward pass, are not needed then."""
    return (1 + (BACKWARD - 1 if is_frozen else BACKWARD)) * forward_flops(arch, lengths, logits)


def pass_flops(arch: Architecture, rows: Iterable[tuple[int, int]], logits: int) -> float:
    """Operations of one forward pass over rows of so many queries and at least as many keys each, of which the last
    query sees all (a response behind a prompt that was computed for others has more keys), with so many logits."""
    rows = list(rows)
    queries = arch.heads * arch.head_dim
    attention = arch.hidden * (2 * queries + 2 * arch.kv_heads * arch.head_dim)
    if moe := arch.moe:
        mlp = moe.per_token * 3 * arch.hidden * moe.intermediate + arch.hidden * moe.count
    else:
        mlp = 3 * arch.hidden * arch.intermediate
    by_token = arch.layers * (attention + mlp)
    # Scores and values: two products of queries x keys, without the half square that the causal mask takes away.
    by_pair = arch.layers * queries
    layers = sum(2 * by_token * q + 2 * by_pair * q * (2 * k - q) for q, k in rows)
    return float(layers + 2 * arch.hidden * arch.vocabulary * logits)

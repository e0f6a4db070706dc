"""Run by test_logprobs.py and test_fused_head.py, alone or under torchrun: python logprobs_worker.py OUT.json [fused]

Log-probs, entropy and gradients from vocabulary slices, for several chunk sizes, against float64 in one piece: the way
of a CPU or, `fused`, that of a GPU, with TRITON_INTERPRET=1 and larger chunks. OUT gets the largest differences, by
chunk size.
"""

import json
import sys

import torch
import torch.distributed as dist

from gcpo_mcore.actor.fused_head import FusedHead
from gcpo_mcore.actor.logprobs import token_logprobs
from gcpo_mcore.run.setup import process_group

TOKENS, HIDDEN, VOCABULARY, TEMPERATURE = 23, 16, 131, 1.3


def whole(hidden, weight, targets):
    """The textbook: one softmax over all logits."""
    log_p = (hidden @ weight.T / TEMPERATURE).log_softmax(1)
    return log_p.gather(1, targets.unsqueeze(1)).squeeze(1), -(log_p.exp() * log_p).sum(1)


def fused(hidden, weight, targets, vocabulary, temperature, group, logits_per_chunk):
    """What `token_logprobs` does where there are CUDA and Triton."""
    tokens = max(logits_per_chunk // weight.shape[0], 1)
    return FusedHead.apply(hidden, weight, targets, vocabulary, temperature, group, tokens)


def main(out: str, way: str = "plain") -> None:
    logprobs = fused if way == "fused" else token_logprobs
    torch.manual_seed(0)
    hidden, weight = 2 * torch.randn(TOKENS, HIDDEN), torch.randn(VOCABULARY, HIDDEN)
    targets = torch.randint(0, VOCABULARY, (TOKENS,))
    upstream = torch.randn(2, TOKENS)
    h, w = hidden.double().requires_grad_(), weight.double().requires_grad_()
    expected = whole(h, w, targets)
    torch.autograd.backward(expected, list(upstream.double()))
    results = {}
    with process_group(1, deadline_s=900):
        group, rank = dist.group.WORLD, dist.get_rank()
        rows = -(-VOCABULARY // group.size())
        padded = torch.nn.functional.pad(weight, (0, 0, 0, rows * group.size() - VOCABULARY), value=7.0)
        for logits_per_chunk in (1, 3 * rows, 7 * rows + 1, 1000 * rows):
            mine, my_rows = hidden.clone().requires_grad_(), padded[rank * rows : (rank + 1) * rows].requires_grad_()
            got = logprobs(mine, my_rows, targets, VOCABULARY, TEMPERATURE, group, logits_per_chunk)
            torch.autograd.backward(got, list(upstream))
            dist.all_reduce(mine.grad)
            shards = [torch.empty_like(my_rows.grad) for _ in range(group.size())]
            dist.all_gather(shards, my_rows.grad)
            gradient = torch.cat(shards)
            assert gradient[VOCABULARY:].abs().sum() == 0, "a padding row has a gradient"
            pairs = {
                "logp": (got[0], expected[0]),
                "entropy": (got[1], expected[1]),
                "hidden gradient": (mine.grad, h.grad),
                "weight gradient": (gradient[:VOCABULARY], w.grad),
            }
            results[logits_per_chunk] = {
                name: float((a.detach().double() - b).abs().max() / b.abs().max()) for name, (a, b) in pairs.items()
            }
        nothing = hidden[:0].clone().requires_grad_()
        logprobs(nothing, my_rows, targets[:0], VOCABULARY, TEMPERATURE, group, 100)[0].sum().backward()
        assert nothing.grad.shape == (0, HIDDEN)
        if rank == 0:
            with open(out, "w") as file:
                json.dump(results, file)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Run by test_fused_head.py with TRITON_INTERPRET=1: python fused_head_worker.py OUT.json

FusedHead against the plain way, in bf16, in one chunk. OUT gets the largest differences as fractions of the largest
value, and that of a second backward pass to the first.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from gcpo_mcore.actor.fused_head import FusedHead
from gcpo_mcore.actor.logprobs import token_logprobs
from gcpo_mcore.run.setup import process_group

TOKENS, HIDDEN, VOCABULARY, PADDED, TEMPERATURE = 6, 32, 8500, 8512, 0.7


def main(out: str) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(TOKENS, HIDDEN).bfloat16(), torch.randn(PADDED, HIDDEN).bfloat16()
    hidden[0] *= 30  # one logit has all of the probability
    targets = torch.randint(0, VOCABULARY, (TOKENS,))
    targets[1] = VOCABULARY - 1
    upstream = list(torch.randn(2, TOKENS))
    found = []
    with process_group(1, deadline_s=900):
        group = dist.group.WORLD
        for way in (token_logprobs, FusedHead.apply):
            h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
            limit = PADDED * TOKENS if way is token_logprobs else TOKENS
            results = way(h, w, targets, VOCABULARY, TEMPERATURE, group, limit)
            grads = torch.autograd.grad(results, (h, w), upstream, retain_graph=True)
            found.append([*results, *grads])
    again = torch.autograd.grad(results, (h, w), upstream)
    names = ("logp", "entropy", "hidden gradient", "weight gradient")
    written = {
        name: float((a.detach().double() - b.detach().double()).abs().max() / a.detach().double().abs().max())
        for name, a, b in zip(names, *found, strict=True)
    }
    written["second gradient"] = max(float((a - b).abs().max()) for a, b in zip(grads, again, strict=True))
    Path(out).write_text(json.dumps(written))


if __name__ == "__main__":
    main(*sys.argv[1:])

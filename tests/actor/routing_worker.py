"""Run by test_routing.py, alone or under torchrun: python routing_worker.py MODEL EXPERTS.pt OUT.pt [key=value ...]

Log-probs of worker.make_groups' rows, sent to the experts of EXPERTS.pt (of each row, or None), and the gradient of
their sum.
"""

import sys
from dataclasses import replace

import torch
import torch.distributed as dist

from gcpo_mcore.actor import hf_mapping
from tests.actor.worker import actor_of, deal, gather


def main(model: str, experts: str, out: str, *options: str) -> None:
    with actor_of(model, dict(option.split("=", 1) for option in options)) as actor:
        batch, known = deal(actor), torch.load(experts, weights_only=False)
        batch = replace(batch, routed_experts=[known[row] for row in batch.mine.tolist()])
        logp = gather(batch, actor.score(batch))
        actor.backward(batch, lambda logp, entropy, rows: (logp.sum(), {}))
        gradients = {
            n: g.clone() for n, g in hf_mapping.export(actor.stage().chunks, actor.arch, lambda p: p.main_grad)
        }
        if dist.get_rank() == 0:
            torch.save((logp, gradients), out)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Run by test_invariance.py under torchrun: python invariance.py MODEL OUT.pt 'override ...' [key=value ...]

For every case (a command line's algorithm) the loss and the full gradient of one update, at fixed weights, on this
layout. Keys: those of ParallelConfig, and sequences, tokens, logits (per chunk),
shared (prompts), lora (an adapter's gradient in place of the weights').
"""

import json
import sys

import torch
import torch.distributed as dist

from gcpo_mcore.actor import hf_mapping
from gcpo_mcore.run.load import load_config
from tests.actor.adapter_worker import factors
from tests.actor.worker import actor_of, gather, off_policy_batch


def main(model: str, out: str, cases: str, *options: str) -> None:
    o = dict(option.split("=", 1) for option in options)
    with actor_of(model, o) as actor:
        results = {}
        for case in json.loads(cases):
            algorithm = load_config(case.split()).algorithm
            batch, logp = off_policy_batch(actor, algorithm)
            metrics, _ = actor.backward(batch, algorithm.loss)
            if "lora" in o:
                gradients = factors(actor, lambda part: part.main_grad)
            else:
                stream = hf_mapping.export(actor.stage().chunks, actor.arch, lambda p: p.main_grad)
                gradients = {name: gradient.clone() for name, gradient in stream}
            results[case] = (gather(batch, logp), metrics["actor/loss"], gradients)
        if dist.get_rank() == 0:
            torch.save(results, out)


if __name__ == "__main__":
    main(*sys.argv[1:])

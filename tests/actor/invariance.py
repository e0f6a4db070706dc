"""Run by test_invariance.py under torchrun: python invariance.py MODEL OUT.pt 'override ...' [key=value ...]

For every case (a command line's algorithm) the loss and the full gradient of one update, at fixed weights, on this
layout. Keys: those of ParallelConfig, and sequences, tokens, logits (per chunk).
"""

import json
import sys

import torch
import torch.distributed as dist

from gcpo_mcore.actor import hf_mapping
from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.architecture import read_architecture
from gcpo_mcore.actor.config import ModelConfig
from gcpo_mcore.actor.layout import check_layout
from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.config.load import load_config
from gcpo_mcore.setup import process_group
from tests.actor.worker import OPTIMIZER, make_batch, parallel_of


def main(model: str, out: str, cases: str, *options: str) -> None:
    o = dict(option.split("=", 1) for option in options)
    parallel = parallel_of(o)
    arch = read_architecture(model)
    layout = check_layout(parallel, arch)
    with process_group(parallel.threads, deadline_s=120):
        start_parallel(layout, seed=0)
        actor = Actor(
            ModelConfig(path=model, dtype="float32"), arch, parallel, layout, OPTIMIZER, temperature=1.3,
            sequences_per_microbatch=int(o.get("sequences", 4)),
            tokens_per_microbatch=int(o["tokens"]) if "tokens" in o else None,
        )  # fmt: skip
        actor.logits_per_chunk = int(o.get("logits", actor.logits_per_chunk))
        results = {}
        for case in json.loads(cases):
            algorithm = load_config(case.split()).algorithm
            batch = make_batch(arch.vocabulary)
            logp = actor.score(batch)
            # Off policy, and an engine that disagrees: every branch of the parts is met.
            noise = torch.randn(3, *batch.mask.shape, generator=torch.Generator().manual_seed(1)) * batch.mask
            batch.old_logp, batch.ref_logp = logp + 0.3 * noise[0], logp + 0.1 * noise[1]
            batch.rollout_logp = batch.old_logp + 0.2 * noise[2]
            algorithm.weigh(batch)
            algorithm.begin_update(batch, logp, progress=0.5)
            metrics = actor.backward(batch, algorithm.loss)
            gradients = {n: g.clone() for n, g in hf_mapping.export(actor.chunks, arch, lambda p: p.main_grad)}
            results[case] = (logp, metrics["actor/loss"], gradients)
        if dist.get_rank() == 0:
            torch.save(results, out)


if __name__ == "__main__":
    main(*sys.argv[1:])

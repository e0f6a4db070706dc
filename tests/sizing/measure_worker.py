"""Run by test_estimate.py under torchrun: python measure_worker.py OUT.json MODEL:key=value,... ...

Builds the actor of each case on 2 processes and takes one update of one batch. OUT gets, for every case, a list over
ranks of what really lies in memory: bytes of parameters, gradient buffers and optimizer state, and the most that
autograd held for backward passes; and the sizes of the host buffers that it is offloaded into.
"""

import json
import sys
from collections import Counter

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from gcpo_mcore.actor.offload import Offloader
from gcpo_mcore.base.collectives import from_every_rank
from gcpo_mcore.run.setup import process_group
from tests.actor.worker import build_actor, deal


class Held:
    """Counts the bytes of the storages that autograd keeps. `peak`: at most so far."""

    def __init__(self, parameters):
        self.own = {p.untyped_storage().data_ptr() for p in parameters}
        self.uses: Counter = Counter()
        self.now = self.peak = 0

    def pack(self, tensor: torch.Tensor):
        return _Saved(self, tensor)


class _Saved:
    """A saved tensor: it counts until autograd lets it go."""

    def __init__(self, held: Held, tensor: torch.Tensor):
        self.held, self.tensor = held, tensor
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        held.uses[self.key] += 1
        if held.uses[self.key] == 1 and self.key not in held.own:
            held.now += self.size
            held.peak = max(held.peak, held.now)

    def __del__(self):
        self.held.uses[self.key] -= 1
        if self.held.uses[self.key] == 0 and self.key not in self.held.own:
            self.held.now -= self.size


def measure(model: str, options: dict[str, str]) -> dict[str, int | list[int]]:
    actor = build_actor(model, options)
    stage = actor.stage()
    held = Held(stage.parameters())
    with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda saved: saved.tensor):
        actor.backward(deal(actor), lambda logp, entropy, rows: (logp.sum(), {}))
    actor.stepper.step(1e-3)
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in stage.parameters()}
    optimizer = 0
    for inner in stage.optimizer.chained_optimizers:
        for state in inner.optimizer.state.values():
            optimizer += sum(value.nbytes for name, value in state.items() if name != "step")
        # The fp32 weights that are stepped, where they are not the model's own.
        mains = [p for group in inner.optimizer.param_groups for p in group["params"]]
        optimizer += sum(p.nbytes for p in mains if p.untyped_storage().data_ptr() not in storages)
    away = Offloader("all", stage)
    away.offload()
    buffers = sorted(len(host) for _, host in away._away)
    away.onload()
    result = {
        "stage": parallel_state.get_pipeline_model_parallel_rank(),
        "data_rank": parallel_state.get_data_parallel_rank(with_context_parallel=True),
        "parameters": sum(storages.values()),
        "gradients": sum(buffer.nbytes for buffer in stage.gradient_buffers()),
        "optimizer": optimizer,
        "activations": held.peak,
        "host_buffers": buffers,
    }
    parallel_state.destroy_model_parallel()
    return result


def main(out: str, *cases: str) -> None:
    results = {}
    with process_group(1, deadline_s=900):
        for case in cases:
            model, _, options = case.partition(":")
            mine = measure(model, dict(option.split("=", 1) for option in options.split(",") if option))
            results[case] = from_every_rank(mine)
        if dist.get_rank() == 0:
            with open(out, "w") as file:
                json.dump(results, file)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Run by test_offload.py under torchrun: python offload_worker.py MODEL OUT.pt FOLDER CASE...

A CASE is 'key=value,...' (the layout, dtype). For each, and each of actor.offload's values, three updates with a KL
penalty, the actor offloaded before each of them, as in a run. OUT gets, by 'CASE|value', on rank 0: what the updates
returned and the weights; while it was away, the bytes left on the device, what was refused, and whether it exported
what it had; and the differences, which have to be 0, that a checkpoint written while it was away and the reference
policy make.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.checkpoint import load_actor
from gcpo_mcore.actor.checkpoint_writer import save_actor
from gcpo_mcore.actor.config import ActorConfig, ModelConfig
from gcpo_mcore.actor.layout import check_layout
from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.actor.reference import Reference
from gcpo_mcore.batch import Batch
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import process_group
from tests.actor.worker import OPTIMIZER, adapter_of, deal, parallel_of, ready


def build(model: str, options: dict[str, str], offload: str) -> Actor:
    arch, parallel = read_architecture(model), parallel_of(options)
    return Actor(
        ModelConfig(path=model, dtype=options.get("dtype", "float32"), adapter=adapter_of(options)), arch, parallel,
        check_layout(parallel, arch), OPTIMIZER, temperature=1.0, sequences_per_microbatch=4,
        tokens_per_microbatch=None,
        settings=ActorConfig(backend="local", offload=offload),
    )  # fmt: skip


def left_on_device(actor: Actor) -> dict[str, int]:
    """Bytes, read without bringing them back."""
    stage = actor._stage
    storages = {
        "weights": [p.untyped_storage() for p in stage.parameters()],
        "gradients": [buffer.untyped_storage() for buffer in stage.gradient_buffers()],
        "state": [
            value.untyped_storage()
            for inner in stage.optimizer.chained_optimizers
            for state in inner.optimizer.state.values()
            for name, value in state.items()
            if name != "step"
        ],
        "main": [
            p.untyped_storage()
            for inner in stage.optimizer.chained_optimizers
            for group in inner.optimizer.param_groups
            for p in group["params"]
        ],
    }
    return {name: sum(s.nbytes() for s in {s._cdata: s for s in of}.values()) for name, of in storages.items()}


def refused(actor: Actor, batch: Batch) -> list[str]:
    """What cannot be had of the actor now."""
    names = []
    for name, call in (("score", lambda: actor.score(batch)), ("stage", actor.stage)):
        try:
            call()
        except RuntimeError:
            names.append(name)
    return names


def train(model: str, options: dict[str, str], offload: str, folder: Path) -> dict:
    algorithm = load_config(["algorithm=gcpo", "algorithm/kl=k3"]).algorithm
    actor = build(model, options, offload)
    batch = deal(actor)
    reference = Reference(actor)
    before = actor.score(batch)
    result: dict = {"metrics": []}
    for update in range(3):
        before_offload = {name: tensor.clone() for name, tensor in actor.export()}
        actor.offload()
        actor.offload()  # a second time changes nothing
        result["left"] = left_on_device(actor)
        result["refused"] = refused(actor, batch)
        if update == 1:  # as an engine that loses a server in its own turn
            result["exported"] = all(torch.equal(before_offload[name], tensor) for name, tensor in actor.export())
        if update == 2:
            if dist.get_rank() == 0:
                folder.mkdir()
            dist.barrier()
            save_actor(actor, folder)
        actor.onload()
        old_logp = actor.score(batch)
        rows = ready(algorithm, replace(batch, rollout_logp=old_logp).scored(old_logp, reference.score(batch)), None)
        result["metrics"].append(actor.update(rows, algorithm.loss, update, 3)[0])
    result["reference"] = float((reference.score(batch) - before).abs().max())
    weights = {name: tensor.clone() for name, tensor in actor.export()}
    again = build(model, options, offload)
    load_actor(again, folder, sums={})
    again.update(rows, algorithm.loss, 2, 3)
    result["resumed"] = max(float((t - weights[n]).abs().max()) for n, t in again.export())
    return result | {"weights": weights}


def main(model: str, out: str, folder: str, *cases: str) -> None:
    results = {}
    with process_group(1, deadline_s=900):
        for number, case in enumerate(cases):
            options = dict(option.split("=", 1) for option in case.split(","))
            start_parallel(check_layout(parallel_of(options), read_architecture(model)), seed=0)
            for offload in ("none", "optimizer", "all"):
                results[f"{case}|{offload}"] = train(model, options, offload, Path(folder) / f"{number}-{offload}")
            parallel_state.destroy_model_parallel()
        if dist.get_rank() == 0:
            torch.save(results, out)


if __name__ == "__main__":
    main(*sys.argv[1:])

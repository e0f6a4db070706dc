"""Run by test_adapter.py under torchrun: python adapter_worker.py OUT CASE...

A case is NAME:MODEL[:key=value]..., keys as worker.py's. Its actor starts with the adapter of MODEL/adapter, takes 3
updates of `probability_loss`, and writes to OUT/NAME.pt: the factors' gradients before the first of them, the factors
and the merged weights after the last, and what is not as it should be with a fresh adapter (`faults`).
"""

import sys

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from gcpo_mcore.actor import groups
from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.adapter import adapters
from gcpo_mcore.base.collectives import from_every_rank
from gcpo_mcore.run.setup import process_group
from tests.actor.worker import build_actor, deal

ADAPTER = "rank=4;alpha=6"
Factors = dict[tuple[str, str], torch.Tensor]


def probability_loss(logp, entropy, rows):
    """The sum of all tokens' probabilities: a weight of its own for every token."""
    return logp.exp().sum() - 0.01 * entropy.sum(), {}


def factors(actor: Actor, value=lambda part: part.detach()) -> Factors:
    """Every A and B, whole, on every rank, put together by hand from what each rank says that it has."""
    mine = [
        (factor.layer, factor.kind, factor.axis, groups.tensor_group().rank(), value(factor.part).cpu().clone())
        for adapter in adapters(actor.stage().chunks)
        for factor in adapter.factors()
    ]
    found: dict[tuple[str, str], dict[int, torch.Tensor]] = {}
    axes = {}
    for layer, kind, axis, rank, part in (entry for of_rank in from_every_rank(mine) for entry in of_rank):
        there = found.setdefault((layer, kind), {}).setdefault(0 if axis is None else rank, part)
        assert torch.equal(there, part), f"{layer} {kind}: ranks that should have the same do not"
        axes[layer, kind] = axis
    return {
        name: parts[0] if axes[name] is None else torch.cat([parts[i] for i in sorted(parts)], dim=axes[name])
        for name, parts in found.items()
    }


def faults(model: str, options: dict[str, str]) -> list[str]:
    """What a fresh adapter does to the model, which is nothing, and what it keeps of the base, which is no gradient."""
    targets = [item for item in options.pop("lora").split(";") if item.startswith("targets")]
    base, adapted = build_actor(model, options), build_actor(model, options | {"lora": ";".join([ADAPTER, *targets])})
    batch, stage, found = deal(base), adapted.stage(), []
    if not torch.equal(base.score(batch), adapted.score(batch)):
        found.append("log-probs")
    weights = {name: tensor.clone() for name, tensor in base.export()}
    found += [name for name, tensor in adapted.export() if not torch.equal(tensor, weights[name])]
    own = [factor.part for adapter in adapters(stage.chunks) for factor in adapter.factors()]
    trained = [p for p in stage.parameters() if p.requires_grad or hasattr(p, "main_grad")]
    if {id(p) for p in trained} != {id(p) for p in own}:
        found.append("what is trained")
    if sum(b.numel() for b in stage.gradient_buffers()) >= sum(p.numel() for p in own) + 128 * 2 * len(own) * 2:
        found.append("gradient buffers")
    return found


def main(out: str, *cases: str) -> None:
    with process_group(threads=1, deadline_s=900):
        for case in cases:
            name, model, *rest = case.split(":")
            options = dict(option.split("=", 1) for option in rest)
            options["lora"] = f"{options.get('lora', ADAPTER)};start={model}/adapter"
            actor = build_actor(model, options)
            batch = deal(actor)
            is_whole = "distributed_optimizer" not in options  # else a rank has its share only
            actor.backward(batch, probability_loss)
            result = {"gradients": factors(actor, lambda part: part.main_grad) if is_whole else {}}
            for update in range(3):
                actor.update(batch, probability_loss, update, 3)
            result["factors"] = factors(actor)
            result["sent"] = {(layer, kind): tensor for layer, kind, tensor in actor.adapter().factors}
            result["merged"] = {key: tensor.clone() for key, tensor in actor.export()}
            parallel_state.destroy_model_parallel()
            result["faults"] = faults(model, options)
            if dist.get_rank() == 0:
                torch.save(result, f"{out}/{name}.pt")
            parallel_state.destroy_model_parallel()


if __name__ == "__main__":
    main(*sys.argv[1:])

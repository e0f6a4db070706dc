"""Run by the tests in this folder, alone or under torchrun: python worker.py MODEL OUT.json [key=value ...]

sequences, tokens, and every key of ParallelConfig   the layout
updates=3          updates to take (the loss is GCPO's)
save=DIR after=2   write a checkpoint after that many updates
load=DIR after=2   start from it: the first `after` updates are left out
weights=FILE       save the exported weights at the end
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.checkpoint import load_actor
from gcpo_mcore.actor.checkpoint_writer import save_actor
from gcpo_mcore.actor.config import ModelConfig, OptimizerConfig, ParallelConfig
from gcpo_mcore.actor.layout import check_layout
from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.batch import Batch
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.objective import Algorithm
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import process_group
from gcpo_mcore.samples import Group, Prompt, Sample

OPTIMIZER = OptimizerConfig(
    lr=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip_grad_norm=1.0, schedule="constant",
    warmup_updates=0, decay_start_fraction=0.0, final_lr_fraction=1.0, max_skipped_updates=3,
)  # fmt: skip


def make_batch(vocabulary: int) -> Batch:
    """Four ragged groups of four; one of them all wrong but for its golden row."""
    rng = np.random.default_rng(0)
    groups = []
    for g in range(4):
        prompt = Prompt(str(g), "x", "", rng.integers(0, vocabulary, 4 + g).tolist(), "")
        samples = []
        for i in range(4):
            ids = rng.integers(0, vocabulary, int(rng.integers(2, 12))).tolist()
            samples.append(
                Sample(
                    i, ids, "", reward=float(i < g), is_accurate=i < g, is_golden=g == 1 and i == 0, truncated=i == 3
                )
            )
        groups.append(Group(prompt, samples))
    return Batch.of(groups)


def parallel_of(options: dict) -> ParallelConfig:
    """The layout that `options` (key -> value or its text) ask for; everything else as in configs/."""
    asked = {key: value for key, value in options.items() if key in ParallelConfig.model_fields}
    return ParallelConfig(**load_config([]).parallel.model_dump() | {"threads": 1} | asked)


@contextlib.contextmanager
def actor_of(model: str, options: dict[str, str]) -> Iterator[Actor]:
    """An actor in the layout of `options`, in process groups of its own."""
    with process_group(parallel_of(options).threads, deadline_s=900):
        yield build_actor(model, options)


def build_actor(model: str, options: dict[str, str]) -> Actor:
    """An actor in the layout of `options`, in the process group that is there."""
    parallel, arch = parallel_of(options), read_architecture(model)
    layout = check_layout(parallel, arch)
    start_parallel(layout, seed=0)
    actor = Actor(
        ModelConfig(path=model, dtype=options.get("dtype", "float32")), arch, parallel, layout, OPTIMIZER,
        temperature=1.3, sequences_per_microbatch=int(options.get("sequences", 4)),
        tokens_per_microbatch=int(options["tokens"]) if "tokens" in options else None,
    )  # fmt: skip
    actor.logits_per_chunk = int(options.get("logits", actor.logits_per_chunk))
    return actor


def gcpo() -> Algorithm:
    """GCPO with every term that a loss can have."""
    return load_config(["algorithm=gcpo", "algorithm.entropy_coefficient=0.01", "algorithm/kl=k3"]).algorithm


def take_update(actor: Actor, algorithm: Algorithm, batch: Batch, update: int) -> dict[str, float]:
    """Update number `update` of 3 on `batch`. Off policy from the second on: old log-probs stay those of a fixed,
    slightly wrong policy. Returns the metrics.
    """
    noise = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(update))
    batch.old_logp = (actor.score(batch) + 1e-3 * noise) * batch.mask
    batch.ref_logp = batch.old_logp - 0.1 * batch.mask
    batch.rollout_logp = batch.old_logp.clone()
    algorithm.weigh(batch)
    algorithm.begin_update(batch, None, update / 3)
    return actor.update(batch, algorithm.loss, update, 3)


def off_policy_batch(actor: Actor, algorithm: Algorithm) -> tuple[Batch, torch.Tensor]:
    """A batch ready for its backward pass, and the actor's log-probs: old and engine's are others, so that every branch
    of the parts is met."""
    batch = make_batch(actor.arch.vocabulary)
    logp = actor.score(batch)
    noise = torch.randn(3, *batch.mask.shape, generator=torch.Generator().manual_seed(1)) * batch.mask
    batch.old_logp, batch.ref_logp = logp + 0.3 * noise[0], logp + 0.1 * noise[1]
    batch.rollout_logp = batch.old_logp + 0.2 * noise[2]
    algorithm.weigh(batch)
    algorithm.begin_update(batch, logp, progress=0.5)
    return batch, logp


def main(model: str, out: str, *options: str) -> None:
    o = dict(option.split("=", 1) for option in options)
    with actor_of(model, o) as actor:
        algorithm = gcpo()
        batch = make_batch(actor.arch.vocabulary)
        first = int(o.get("after", 0)) if "load" in o else 0
        result: dict = {"logp": actor.score(batch).tolist(), "metrics": []}
        if "load" in o:
            load_actor(actor, Path(o["load"]))
        for update in range(first, int(o.get("updates", 3))):
            result["metrics"].append(take_update(actor, algorithm, batch, update))
            if "save" in o and update + 1 == int(o["after"]):
                if dist.get_rank() == 0:
                    Path(o["save"]).mkdir()
                dist.barrier()
                save_actor(actor, Path(o["save"]))
        exported = {name: tensor.clone() for name, tensor in actor.export()}
        if dist.get_rank() == 0:
            if "weights" in o:
                torch.save(exported, o["weights"])
            Path(out).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])

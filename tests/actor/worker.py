"""Run by the tests in this folder, alone or under torchrun: python worker.py MODEL OUT.json [key=value ...]

sequences, tokens, and every key of ParallelConfig   the layout
lora=rank=4;alpha=8 keys of LoraAdapter: an adapter is trained
updates=3          updates to take (the loss is GCPO's)
save=DIR after=2   write a checkpoint after that many updates
load=DIR after=2   start from it: the first `after` updates are left out
weights=FILE       save the exported weights at the end
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.checkpoint import load_actor
from gcpo_mcore.actor.checkpoint_writer import save_actor
from gcpo_mcore.actor.config import (
    ALL_WEIGHTS,
    Adapter,
    LoraAdapter,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
)
from gcpo_mcore.actor.layout import check_layout
from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.base.collectives import from_every_rank
from gcpo_mcore.batch import Batch, ScoredBatch, UpdateBatch
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.objective import Algorithm
from gcpo_mcore.run.dealing import Dealer
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.setup import process_group
from gcpo_mcore.samples import Group, Prompt, Sample

OPTIMIZER = OptimizerConfig(
    lr=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip_grad_norm=1.0, schedule="constant",
    warmup_updates=0, decay_start_fraction=0.0, final_lr_fraction=1.0, max_skipped_updates=3,
)  # fmt: skip


def make_groups(vocabulary: int) -> list[Group[Sample]]:
    """Four ragged groups of four; one of them all wrong but for its golden row."""
    rng = np.random.default_rng(0)
    groups = []
    for g in range(4):
        prompt = Prompt(str(g), "x", "", rng.integers(0, vocabulary, 4 + g).tolist(), "")
        samples = []
        for i in range(4):
            ids = rng.integers(0, vocabulary, int(rng.integers(2, 12))).tolist()
            is_golden = g == 1 and i == 0
            logp = np.zeros(0 if is_golden else len(ids), np.float32)
            sample = Sample(i, ids, "", logp, reward=float(i < g), is_accurate=i < g, is_golden=is_golden)
            sample.truncated, sample.home = i == 3, (0, 4 * g + i)
            samples.append(sample)
        groups.append(Group(prompt, samples))
    return groups


def make_batch(vocabulary: int) -> Batch:
    """All rows of `make_groups`, on a rank that has no peers."""
    return Batch.of(make_groups(vocabulary))


def deal(actor: Actor, groups: list[Group[Sample]] | None = None) -> Batch:
    """This rank's rows of `groups` (None: of `make_groups`), all of which rank 0 has sampled."""
    groups = groups or make_groups(actor.arch.vocabulary)
    store = [sample for group in groups for sample in group.samples]
    return Dealer(actor.layout, dist.get_rank(), actor.peers, actor.arch).deal(groups, store, updates=1)


def gather(batch: Batch, values: torch.Tensor) -> torch.Tensor:
    """[B, T] of all rows, on every rank, from `values` [b, t] of this rank's."""
    whole = values.new_zeros(len(batch.table), int(batch.table.tokens.max()))
    for mine, of_rank in from_every_rank((batch.mine, values)):
        whole[mine, : of_rank.shape[1]] = of_rank
    return whole


def noise(batch: Batch, seed: int, count: int) -> torch.Tensor:
    """[count, b, t] random numbers of the rows' tokens, whoever has them; 0 on padding."""
    shape = (count, len(batch.table), int(batch.table.tokens.max()))
    whole = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return whole[:, batch.mine, : batch.mask.shape[1]] * batch.mask


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
    if not parallel_state.model_parallel_is_initialized():
        start_parallel(layout, seed=0)
    actor = Actor(
        ModelConfig(path=model, dtype=options.get("dtype", "float32"), adapter=adapter_of(options)),
        arch, parallel, layout, OPTIMIZER,
        temperature=1.3, sequences_per_microbatch=int(options.get("sequences", 4)),
        tokens_per_microbatch=int(options["tokens"]) if "tokens" in options else None,
        shares_prompts="shared" in options,
    )  # fmt: skip
    actor.logits_per_chunk = int(options.get("logits", actor.logits_per_chunk))
    return actor


def adapter_of(options: dict[str, str]) -> Adapter:
    """That of `lora=key=value;...`, keys of LoraAdapter; everything else as in configs/."""
    if "lora" not in options:
        return ALL_WEIGHTS
    own = dict(item.split("=") for item in options["lora"].split(";") if item)
    targets = {"targets": own.pop("targets").split("+")} if "targets" in own else {}
    plain = load_config(["model/adapter=lora"]).model.adapter.plain() | own | targets
    return LoraAdapter.model_validate(plain)


def gcpo() -> Algorithm:
    """GCPO with every term that a loss can have."""
    return load_config(["algorithm=gcpo", "algorithm.entropy_coefficient=0.01", "algorithm/kl=k3"]).algorithm


def take_update(actor: Actor, algorithm: Algorithm, batch: Batch, update: int) -> dict[str, float]:
    """Update number `update` of 3 on `batch`. Off policy from the second on: old log-probs stay those of a fixed,
    slightly wrong policy. Returns the metrics.
    """
    old_logp = actor.score(batch) + 1e-3 * noise(batch, update, 1)[0]
    rows = ready(algorithm, replace(batch, rollout_logp=old_logp).scored(old_logp, old_logp - 0.1 * batch.mask), None)
    return actor.update(rows, algorithm.loss, update, 3)[0]


def ready(algorithm: Algorithm, scored: ScoredBatch, logp: torch.Tensor | None, progress: float = 0.0) -> UpdateBatch:
    """The rows ready for their backward pass; `logp` under the present weights, None: as before."""
    weighed, _ = algorithm.weigh(scored)
    return algorithm.begin_update(weighed, scored.old_logp if logp is None else logp, progress)[0]


def off_policy_batch(actor: Actor, algorithm: Algorithm) -> tuple[UpdateBatch, torch.Tensor]:
    """A batch ready for its backward pass, and the actor's log-probs: old and engine's are others, so that every branch
    of the parts is met."""
    batch = deal(actor)
    logp = actor.score(batch)
    old, ref, rollout = noise(batch, 1, 3)
    old_logp = logp + 0.3 * old
    scored = replace(batch, rollout_logp=old_logp + 0.2 * rollout).scored(old_logp, logp + 0.1 * ref)
    return ready(algorithm, scored, logp, progress=0.5), logp


def main(model: str, out: str, *options: str) -> None:
    o = dict(option.split("=", 1) for option in options)
    with actor_of(model, o) as actor:
        algorithm = gcpo()
        batch = deal(actor)
        first = int(o.get("after", 0)) if "load" in o else 0
        result: dict = {"logp": gather(batch, actor.score(batch)).tolist(), "metrics": []}
        if "load" in o:
            load_actor(actor, Path(o["load"]), sums={})
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

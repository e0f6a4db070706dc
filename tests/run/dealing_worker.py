"""Run by test_dealing.py under torchrun: python dealing_worker.py OUT.json TENSOR PIPELINE UPDATES

Every rank samples some rows, golden answers and routed experts among them; OUT says what each rank got of them.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch.distributed as dist

from gcpo_mcore.actor.layout import Layout
from gcpo_mcore.base.collectives import Alone, from_every_rank
from gcpo_mcore.hf.architecture import Architecture
from gcpo_mcore.run.dealing import Dealer
from gcpo_mcore.run.setup import process_group
from gcpo_mcore.samples import Facts, Group, Prompt, Sample

ARCH = Architecture(
    family="qwen3_moe", layers=3, hidden=8, heads=1, kv_heads=1, head_dim=8, intermediate=8, vocabulary=100,
    max_positions=64, rope_theta=1e4, norm_eps=1e-6, tied_embeddings=False, qkv_bias=False, qk_norm=True, experts=4,
    experts_per_token=2, expert_intermediate=8, normalised_topk=True,
)  # fmt: skip


def sample_of(group: int, index: int) -> Sample:
    """The same on every rank: a function of its place."""
    rng = np.random.default_rng([group, index])
    tokens, prompt = int(rng.integers(1, 12)), group + 1
    ids = rng.integers(0, 100, tokens).astype(np.int32)
    if (group, index) == (1, 2):
        return Sample(index, ids, "golden", is_golden=True, reward=1.0, is_accurate=True)
    experts = rng.integers(0, 4, (prompt + tokens - 1, 3, 2)).astype(np.int16) if group % 2 else None
    logp = -rng.random(tokens).astype(np.float32)
    return Sample(index, ids, "", logp, routed_experts=experts, reward=float(rng.random()))


def main(out: str, tensor: str, pipeline: str, updates: str) -> None:
    with process_group(threads=1, deadline_s=600):
        rank, world = dist.get_rank(), dist.get_world_size()
        parts = int(tensor) * int(pipeline)
        layout = Layout(
            world=world, tensor=int(tensor), pipeline=int(pipeline), virtual_pipeline=1, context=1,
            data=world // parts, expert=1,
        )  # fmt: skip
        store: list[Sample] = []
        mine = [sample_of(g, i) for g in range(5) for i in range(4) if (4 * g + i) % world == rank]
        told = []
        for sample in mine:
            facts = Facts(sample.index, **{name: getattr(sample, name) for name in (
                "tokens", "truncated", "weight_version", "is_golden", "reward", "is_accurate", "has_routing",
            )}, home=(rank, len(store)))  # fmt: skip
            store.append(sample)
            told.append(facts)
        numbers = [number for number in range(20) if number % world == rank]
        everyone = dict(pair for share in from_every_rank(list(zip(numbers, told, strict=True))) for pair in share)
        groups = [
            Group(Prompt(str(g), "x", "", list(range(g + 1)), ""), [everyone[4 * g + i] for i in range(4)])
            for g in range(5)
        ]
        batch = Dealer(layout, rank, Alone(), ARCH).deal(groups, store, int(updates))
        got = {}
        for row, number in enumerate(batch.mine.tolist()):
            group, index = divmod(number, 4)
            true, experts = sample_of(group, index), batch.routed_experts[row]
            assert list(batch.prompt_ids[row]) == list(range(group + 1))
            assert batch.response_ids[row].tolist() == true.response_ids.tolist()
            assert batch.rollout_logp[row, : len(true.rollout_logp)].tolist() == true.rollout_logp.tolist()
            assert batch.mask[row].sum() == true.tokens
            assert (experts is None) == (true.routed_experts is None)
            assert experts is None or (experts == true.routed_experts).all()
            got[number] = true.tokens + group + 1
        shares = from_every_rank(got)
        if rank == 0:
            Path(out).write_text(json.dumps(shares))


if __name__ == "__main__":
    main(*sys.argv[1:])

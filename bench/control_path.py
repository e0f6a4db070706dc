"""What a step costs a rank besides the model: bookkeeping between "graded" and "update begins", one rank's share.

    python bench/control_path.py [--cases 512x8x4096 512x16x8192] [--ranks 8 64 512] [--out FILE.json]

A case is prompts x samples x mean tokens; response lengths are log-normal (sigma 1) about that mean, at most four times
as long. The code is the run's own, for one rank of so many: what the other ranks tell is made up, and what they would
send is zeros, so that no network is in it. Seconds of CPU time of one thread, the median of three; the resident memory
that the process gained; bytes that come in. A table, and a line of JSON.
"""

import argparse
import json
import pickle
import statistics
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from gcpo_mcore.actor.layout import Layout
from gcpo_mcore.base.collectives import Alone
from gcpo_mcore.hf.architecture import Architecture
from gcpo_mcore.monitor.tables import print_results
from gcpo_mcore.rollout.facts import hear, tell
from gcpo_mcore.run.dealing import Dealer
from gcpo_mcore.run.load import load_config
from gcpo_mcore.samples import Prompt, Sample

PROMPT_TOKENS = 256
ARCH = Architecture(
    family="qwen2", layers=28, hidden=1536, heads=12, kv_heads=2, head_dim=128, intermediate=8960, vocabulary=151936,
    max_positions=65536, rope_theta=1e6, norm_eps=1e-6, tied_embeddings=True, qkv_bias=True, qk_norm=False,
)  # fmt: skip


class Simulated(Dealer):
    """A dealer whose peers send zeros at once."""

    def exchange(self, outgoing: np.ndarray, bytes_out: list[int], bytes_in: list[int]) -> np.ndarray:
        self.bytes_in = sum(bytes_in)
        return np.zeros(sum(bytes_in), np.uint8)


def made(rank: int, ranks: int, prompts: int, samples: int, lengths: np.ndarray) -> list[tuple[int, Sample]]:
    """A rank's graded samples with the numbers of their groups."""
    per_rank = -(-prompts * samples // ranks)
    mine = range(rank * per_rank, min((rank + 1) * per_rank, prompts * samples))
    rng = np.random.default_rng(rank)
    found = []
    for number in mine:
        ids = np.zeros(lengths[number], np.int32)
        logp = np.zeros(lengths[number], np.float32)
        right = bool(rng.random() < 0.4)
        found.append(
            (number // samples, Sample(number % samples, ids, "", logp, reward=float(right), is_accurate=right))
        )
    return found


def told_by(rank: int, ranks: int, prompts: int, samples: int, lengths: np.ndarray) -> bytes:
    """What another rank tells, as it arrives."""
    facts = made(rank, ranks, prompts, samples, np.ones_like(lengths))
    told = tell(facts, [])
    per_rank = -(-prompts * samples // ranks)
    told["tokens"] = lengths[rank * per_rank : rank * per_rank + len(told)]
    return pickle.dumps((told, {}))


def measure(prompts: int, samples: int, mean: int, ranks: int, repeats: int = 3) -> dict:
    """Seconds by stage of rank 0 of `ranks`, GiB and bytes."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.lognormal(np.log(mean) - 0.5, 1.0, prompts * samples), 4 * mean).astype(np.int64) + 1
    algorithm = load_config(["algorithm=gcpo"]).algorithm
    asked = [Prompt(str(p), "x", "", [1] * PROMPT_TOKENS, "") for p in range(prompts)]
    layout = Layout(world=ranks, tensor=1, pipeline=1, virtual_pipeline=1, context=1, data=ranks, expert=1)
    others = [told_by(rank, ranks, prompts, samples, lengths) for rank in range(1, ranks)]
    mine = made(0, ranks, prompts, samples, lengths)
    dealer = Simulated(layout, 0, Alone(), ARCH)
    seconds: dict[str, list[float]] = {}
    before = psutil.Process().memory_info().rss
    gained = 0

    def timed(stage: str, do):
        started = time.process_time()
        result = do()
        seconds.setdefault(stage, []).append(time.process_time() - started)
        return result

    for _ in range(repeats):
        store: list[Sample] = []
        told = timed("tell", lambda store=store: tell(mine, store))
        shares = timed("hear", lambda told=told: [told, *(pickle.loads(share)[0] for share in others)])
        groups = timed("hear", lambda shares=shares: hear(asked, shares))
        kept, _ = timed("select", lambda groups=groups: algorithm.select(groups, 1))
        batch = timed("deal", lambda kept=kept, store=store: dealer.deal(kept, store, 1))
        logp = torch.zeros_like(batch.mask)
        weighed, _ = timed("weigh", lambda batch=batch, logp=logp: algorithm.weigh(batch.scored(logp)))
        update, _ = timed("begin update", lambda w=weighed, logp=logp: algorithm.begin_update(w, logp, 0.0))
        gained = max(gained, psutil.Process().memory_info().rss - before)
        del batch, weighed, update, logp
    stages: dict[str, float] = {}
    for stage, taken in seconds.items():
        parts = len(taken) // repeats  # "hear" is two
        stages[stage] = statistics.median(sum(taken[i * parts : (i + 1) * parts]) for i in range(repeats))
    return {
        "case": f"{prompts}x{samples}x{mean}", "ranks": ranks, "rows": len(mine),
        **{f"{stage}_s": round(s, 4) for stage, s in stages.items()}, "all_s": round(sum(stages.values()), 3),
        "gib": round(gained / 2**30, 3), "mib_in": round(dealer.bytes_in / 2**20, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["512x8x4096", "512x16x8192", "1024x16x16384"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[8, 64, 512])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for case in args.cases:
        for ranks in args.ranks:
            rows.append(measure(*map(int, case.split("x")), ranks))
            print(json.dumps(rows[-1]), flush=True)
    print_results("seconds of CPU time, one rank's share", list(rows[0]), rows)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What a step costs a rank besides the model: bookkeeping between "graded" and "update begins", one rank's share.

    python bench/control_path.py [--cases 512x8x4096 512x16x8192] [--ranks 8 64 512] [--processes 2 4] [--out FILE]

A case is prompts x samples x mean tokens; response lengths are log-normal (sigma 1) about that mean, at most four times
as long. The code is the run's own, for one rank of so many: what the other ranks tell is made up, and what they would
send is zeros, so that no network is in it. With --processes there are so many ranks, over gloo: what the slowest took.
Seconds of CPU time of one thread, the median of three; the resident memory that the process gained; bytes that come in;
seconds by the clock, which for processes have the network and the waiting in them. A table, and a line of JSON.

With SGLang's servers rank 0 has all samples first, and scatters them: `rank_0_s` and `rank_0_mib` are the seconds of
CPU time in which it pickles them for all ranks, and their size (of simulated ranks; not in `all_s`, nor is sending).
"""

import argparse
import json
import multiprocessing
import pickle
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.distributed as dist

from gcpo_mcore.actor.layout import Layout
from gcpo_mcore.base.collectives import Alone, GroupPeers, from_every_rank
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


def through_rank_0(ranks: int, prompts: int, samples: int, lengths: np.ndarray) -> tuple[float, int]:
    """Seconds of CPU time, and bytes, of pickling each rank's samples, with text of four bytes a token."""
    seconds, size = 0.0, 0
    for rank in range(ranks):
        share = [sample for _, sample in made(rank, ranks, prompts, samples, lengths)]
        for sample in share:
            sample.sampling_logp, sample.response_text = sample.rollout_logp.copy(), "abcd" * sample.tokens
        started = time.process_time()
        size += len(pickle.dumps(share))
        seconds += time.process_time() - started
    return seconds, size


def lengths_of(rows: int, mean: int) -> np.ndarray:
    """[rows] response lengths."""
    rng = np.random.default_rng(0)
    return np.minimum(rng.lognormal(np.log(mean) - 0.5, 1.0, rows), 4 * mean).astype(np.int64) + 1


class Stopwatch:
    """CPU and clock seconds of each stage, of every repeat."""

    def __init__(self):
        self.cpu: list[dict[str, float]] = []
        self.wall: list[float] = []

    def begin(self) -> None:
        """A repeat begins."""
        self.cpu.append({})
        self.wall.append(0.0)

    def __call__(self, stage: str, do):
        """What `do` returns."""
        wall, cpu = time.monotonic(), time.process_time()
        result = do()
        self.cpu[-1][stage] = self.cpu[-1].get(stage, 0.0) + time.process_time() - cpu
        self.wall[-1] += time.monotonic() - wall
        return result

    def stages(self) -> dict[str, float]:
        """The median of each."""
        return {stage: statistics.median(repeat[stage] for repeat in self.cpu) for stage in self.cpu[0]}


def steps(mine, asked, dealer: Dealer, shares_of, repeats: int) -> tuple[Stopwatch, int]:
    """The stages of a rank, so many times, and the bytes that it gained; `shares_of` says what all ranks told."""
    algorithm = load_config(["algorithm=gcpo"]).algorithm
    timed, gained = Stopwatch(), 0
    before = psutil.Process().memory_info().rss
    for _ in range(repeats):
        timed.begin()
        store: list[Sample] = []
        told = timed("tell", lambda store=store: tell(mine, store))
        shares = timed("hear", lambda told=told: shares_of(told))
        groups = timed("hear", lambda shares=shares: hear(asked, shares))
        kept, _ = timed("select", lambda groups=groups: algorithm.select(groups, 1))
        batch = timed("deal", lambda kept=kept, store=store: dealer.deal(kept, store, 1))
        logp = torch.zeros_like(batch.mask)
        weighed, _ = timed("weigh", lambda batch=batch, logp=logp: algorithm.weigh(batch.scored(logp)))
        update, _ = timed("begin update", lambda w=weighed, logp=logp: algorithm.begin_update(w, logp, 0.0))
        gained = max(gained, psutil.Process().memory_info().rss - before)
        del batch, weighed, update, logp
    return timed, gained


def found_of(case: str, ranks: int, how: str, rows: int, timed: Stopwatch, gained: int, bytes_in: int) -> dict:
    stages = timed.stages()
    return {
        "case": case, "ranks": ranks, "how": how, "rows": rows,
        **{f"{stage}_s": round(s, 4) for stage, s in stages.items()}, "all_s": round(sum(stages.values()), 3),
        "clock_s": round(statistics.median(timed.wall), 3),
        "gib": round(gained / 2**30, 3), "mib_in": round(bytes_in / 2**20, 1),
    }  # fmt: skip


def prompts_of(prompts: int) -> list[Prompt]:
    return [Prompt(str(p), "x", "", [1] * PROMPT_TOKENS, "") for p in range(prompts)]


def data_parallel(ranks: int) -> Layout:
    return Layout(world=ranks, tensor=1, pipeline=1, virtual_pipeline=1, context=1, data=ranks, expert=1)


def simulated(case: str, ranks: int) -> dict:
    """Rank 0 of `ranks`, in a process of its own: memory that an earlier case freed would not count as gained."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        return alone.submit(simulated_here, case, ranks).result()


def simulated_here(case: str, ranks: int, repeats: int = 3) -> dict:
    """Rank 0 of `ranks`, in this process."""
    torch.set_num_threads(1)
    prompts, samples, mean = map(int, case.split("x"))
    lengths = lengths_of(prompts * samples, mean)
    others = [told_by(rank, ranks, prompts, samples, lengths) for rank in range(1, ranks)]
    mine = made(0, ranks, prompts, samples, lengths)
    dealer = Simulated(data_parallel(ranks), 0, Alone(), ARCH)
    timed, gained = steps(
        mine, prompts_of(prompts), dealer, lambda told: [told, *(pickle.loads(share)[0] for share in others)], repeats
    )
    found = found_of(case, ranks, "simulated", len(mine), timed, gained, dealer.bytes_in)
    seconds, size = through_rank_0(ranks, prompts, samples, lengths)
    return {**found, "rank_0_s": round(seconds, 3), "rank_0_mib": round(size / 2**20)}


class Counted(Dealer):
    """A dealer that knows what came in from other ranks."""

    def exchange(self, outgoing: np.ndarray, bytes_out: list[int], bytes_in: list[int]) -> np.ndarray:
        self.bytes_in = sum(bytes_in) - bytes_in[self.rank]
        return super().exchange(outgoing, bytes_out, bytes_in)


def real_rank(rank: int, ranks: int, case: str, store: str, results) -> None:
    """One rank of --processes."""
    torch.set_num_threads(1)
    prompts, samples, mean = map(int, case.split("x"))
    lengths = lengths_of(prompts * samples, mean)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    group = dist.group.WORLD
    assert group is not None
    mine = made(rank, ranks, prompts, samples, lengths)
    dealer = Counted(data_parallel(ranks), rank, GroupPeers(group, torch.device("cpu")), ARCH)
    timed, gained = steps(mine, prompts_of(prompts), dealer, from_every_rank, 3)
    results.put(found_of(case, ranks, "gloo", len(mine), timed, gained, dealer.bytes_in))
    dist.destroy_process_group()


def real(case: str, ranks: int) -> dict:
    """All ranks at once; of each figure the largest."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = [(rank, ranks, case, f"{folder}/store", results) for rank in range(ranks)]
        processes = [context.Process(target=real_rank, args=one) for one in arguments]
        for process in processes:
            process.start()
        told = [results.get() for _ in processes]
        for process in processes:
            process.join()
    return {key: max(one[key] for one in told) for key in told[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["512x8x4096", "512x16x8192", "1024x16x16384"])
    parser.add_argument("--ranks", nargs="*", type=int, default=[8, 64, 512])
    parser.add_argument("--processes", nargs="*", type=int, default=[], help="real ones, over gloo")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    for case in args.cases:
        for measure, numbers in ((simulated, args.ranks), (real, args.processes)):
            for ranks in numbers:
                rows.append(measure(case, ranks))
                print(json.dumps(rows[-1]), flush=True)
    print_results("seconds of CPU time, one rank's share", list(max(rows, key=len)), rows)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

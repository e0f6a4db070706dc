"""Weights from one process to two others on the same GPU, by the handles that servers are sent, as JSON:

    python bench/gpu_ipc.py [--mib 512] [--rounds 5] [--out FILE.json]

Each reader has to see the same bytes, from handles of its own, and when both have let go of them no memory may stay:
not after any round. Then one round that nobody reads. On a CPU the bytes themselves travel, as they do in a run. The
exit code is 1 if bytes differ or memory stays.
"""

import argparse
import base64
import gc
import hashlib
import io
import json
import pickle
import subprocess
import sys
import time
from pathlib import Path

import torch
from common import device_name, synchronise
from torch.multiprocessing import reductions

from gcpo_mcore.base import platform
from gcpo_mcore.rollout.sglang.buckets import Bucket, buckets
from gcpo_mcore.rollout.sglang.transports.tensor import DEVICE, by_value, handles

READERS = 2
STAYS_MIB = 1  # less is no bucket's memory


class Unpickler(pickle.Unpickler):
    """Reads a list of tensors as a server does: the GPU's UUID stands for its number."""

    def find_class(self, module: str, name: str):
        """See pickle.Unpickler."""
        return rebuilt if name == "rebuild_cuda_tensor" else super().find_class(module, name)


def rebuilt(*arguments) -> torch.Tensor:
    """The tensor of a handle, on the GPU whose UUID it names."""
    uuids = [str(torch.cuda.get_device_properties(number).uuid) for number in range(torch.cuda.device_count())]
    number = uuids.index(arguments[DEVICE])
    return reductions.rebuild_cuda_tensor(*arguments[:DEVICE], number, *arguments[DEVICE + 1 :])


def sums(tensors: list[tuple[str, torch.Tensor]]) -> dict[str, str]:
    """Names, dtypes, shapes and bytes, summed."""
    return {
        name: f"{x.dtype} {tuple(x.shape)} {hashlib.sha256(x.cpu().contiguous().view(torch.uint8).numpy()).hexdigest()}"
        for name, x in tensors
    }


def read() -> None:
    """A reader: for each line of tensors one with their sums."""
    for line in sys.stdin:
        tensors = Unpickler(io.BytesIO(base64.b64decode(line))).load()
        found = sums(tensors)
        del tensors
        gc.collect()
        platform.collect_handed_over()
        print(json.dumps(found), flush=True)


class Reader:
    """A process that reads tensors."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--reader"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, packed: str) -> None:
        """Sends what `handles` or `by_value` made."""
        assert self.process.stdin is not None
        self.process.stdin.write(packed + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, str]:
        """The sums of what was sent. SystemExit if the process has died."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"error: a reader ended with exit code {self.process.wait()}")
        return json.loads(line)

    def end(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()


def bucket(mib: int, seed: int) -> Bucket:
    """Random weights of two dtypes, laid end to end as the transport does."""
    torch.manual_seed(seed)
    half = torch.randn(mib * 2**18, dtype=torch.bfloat16, device=platform.device()).view(-1, 256)
    single = torch.randn(mib * 2**17, device=platform.device())
    (found,) = buckets([("a.weight", half), ("b.weight", single)], size=2**40)
    return found


def held_mib() -> float:
    """Allocated on the GPU by this process."""
    platform.collect_handed_over()
    return torch.cuda.memory_allocated() / 2**20 if platform.HAS_CUDA else 0.0


def one_round(readers: list[Reader], mib: int, seed: int) -> bool:
    """Whether every reader saw the same bytes. The bucket lives until all have answered."""
    pack = handles if platform.HAS_CUDA else by_value
    sent = bucket(mib, seed)
    synchronise()
    for reader in readers:
        reader.ask(pack(sent.tensors))
    expected = sums(sent.tensors)
    found = [reader.answer() for reader in readers]  # of all: none may read on when the bucket is gone
    return all(each == expected for each in found)


def unread_mib(mib: int) -> float:
    """What stays of a bucket whose handles nobody reads: why ranks that nobody reads make none."""
    before = held_mib()
    (handles if platform.HAS_CUDA else by_value)(bucket(mib, 0).tensors)
    gc.collect()
    return held_mib() - before


def measure(mib: int, rounds: int) -> dict:
    """All rounds."""
    readers = [Reader() for _ in range(READERS)]
    try:
        before, held, seconds, same = held_mib(), [], [], []
        for seed in range(rounds):
            started = time.monotonic()
            same.append(one_round(readers, mib, seed))
            seconds.append(round(time.monotonic() - started, 4))
            gc.collect()
            held.append(round(held_mib() - before, 3))
    finally:
        for reader in readers:
            reader.end()
    return {"is_same": all(same), "stays_mib": held, "round_s": seconds, "unread_stays_mib": round(unread_mib(mib), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=512 if platform.HAS_CUDA else 4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--reader", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    platform.start(None)
    if args.reader:
        read()
        return
    result = {"device": device_name(), "torch": torch.__version__, "mib": args.mib, **measure(args.mib, args.rounds)}
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    if not result["is_same"] or max(result["stays_mib"]) > STAYS_MIB:
        sys.exit("error: bytes differ" if not result["is_same"] else "error: memory stays after it was read")


if __name__ == "__main__":
    main()

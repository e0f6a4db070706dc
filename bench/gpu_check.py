"""Everything that a GPU has to show, in one command of less than ten minutes, without a network:

    python bench/gpu_check.py --out gpu_check.json            # on one H100 or H200
    python bench/gpu_check.py --only kernels update --out ... # parts alone
    python bench/gpu_check.py --size tiny                     # the same on a CPU, small

kernels     log-probs, attention, SwiGLU, RMSNorm against fp64 and the CPU, forward and backward
run         GCPO runs: packed, bf16, offloaded, resumed, exported
ipc         weights by handles between processes
update      a 1.5B model's update: tokens/s, MFU, memory, shares of kernels and head, prompts shared or not
checkpoint  its checkpoint: seconds and peaks
sglang      sync, release and decoding of a server, if SGLang is installed (on a CPU: .venv-sglang)

Each part is a script of its own (bench/) in a process of its own with its own time limit, so that one that fails, or
loses the GPU, does not end the next. The JSON has each part's figures and errors; it is written after every part. The
exit code is 1 if a part failed.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from common import ROOT, commit

from gcpo_mcore.base import platform

SAID = 3000  # characters of what a failed part said
PACKAGES = ("torch", "megatron-core", "transformers", "sglang", "transformer-engine")


@dataclass(frozen=True)
class Part:
    """A script in bench/, its arguments by size, and the seconds that it may take."""

    script: str
    tiny: tuple[str, ...]
    full: tuple[str, ...]
    limit_s: int


PARTS = {
    "kernels": Part("gpu_kernels.py", ("--size", "tiny"), ("--size", "full"), 70),
    "run": Part("gpu_run.py", ("--size", "tiny"), ("--size", "full"), 140),
    "ipc": Part("gpu_ipc.py", ("--mib", "4", "--rounds", "2"), (), 40),
    "update": Part(
        "train_step.py",
        ("--size=tiny", "--tokens=512", "--length=64", "--samples=8", "--pack=256", "--repeats=1", "--share-prompts",
         "--profile"),
        ("--size=1.5b", "--tokens=131072", "--length=1024", "--samples=8", "--pack=16384", "--repeats=2",
         "--share-prompts", "--profile"),
        170,
    ),
    "checkpoint": Part("checkpoint.py", ("--size", "tiny"), ("--size", "1.5b"), 80),
    "sglang": Part(
        "rollout.py",
        ("--concurrency=8", "--tokens=16", "--repeats=2"),
        ("--size=1.5b", "--concurrency=256", "--tokens=256", "--repeats=3", "rollout=sglang",
         "rollout.memory_saver=true"),
        90,
    ),
}  # fmt: skip


def problem(name: str) -> str | None:
    """Why a part cannot be run here."""
    if name != "sglang":
        return None
    if platform.HAS_CUDA:
        return None if importlib.util.find_spec("sglang") else "SGLang is not installed beside this interpreter"
    return None if (ROOT / ".venv-sglang").is_dir() else "there is no .venv-sglang (make sglang-cpu)"


def run(part: Part, arguments: tuple[str, ...]) -> dict:
    """A part's seconds, exit code, figures (as far as it got) and, if it failed, the end of what it said."""
    with tempfile.TemporaryDirectory() as folder:
        out, said = Path(folder) / "out.json", Path(folder) / "said"
        started = time.monotonic()
        with open(said, "wb") as file:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "bench" / part.script), *arguments, "--out", str(out)],
                cwd=ROOT, stdout=file, stderr=file, start_new_session=True, env=environment(),
            )  # fmt: skip
            code = ended(process, part.limit_s)
        found = {"s": round(time.monotonic() - started, 1), "exit_code": code}
        if out.exists():
            found["result"] = json.loads(out.read_text())
        if code != 0:
            late = f"not done after {part.limit_s} s; " if code is None else ""
            found["error"] = late + said.read_text(errors="replace").strip()[-SAID:]
        return found


def ended(process: subprocess.Popen, limit_s: float) -> int | None:
    """The exit code; None if it was not done in time. Nothing that it started is left."""
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def environment() -> dict[str, str]:
    """Of a part: nothing is fetched, and one process a machine."""
    left_out = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def machine() -> dict:
    """GPU, driver and versions, without using the GPU."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    smi = shutil.which("nvidia-smi") and subprocess.run(query, capture_output=True, text=True).stdout.strip()
    found = {name: version for name in PACKAGES if (version := installed(name))}
    return {"gpu": smi or None, "python": sys.version.split()[0], "versions": found, "commit": commit()}


def installed(package: str) -> str | None:
    """Its version; None if it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "full"), default="full" if platform.HAS_CUDA else "tiny")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--data", type=Path, help="of the runs: what tools/prepare.py --skip-starter wrote")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result: dict = {"size": args.size, **machine(), "parts": {}}
    for name in args.only:
        part = PARTS[name]
        arguments = part.tiny if args.size == "tiny" else part.full
        if name == "run" and args.data:
            arguments = (*arguments, "--data", str(args.data.resolve()))
        why = problem(name)
        result["parts"][name] = found = {"skipped": why} if why else run(part, arguments)
        said = f"skipped: {why}" if why else f"{found['s']} s, {'FAILED' if 'error' in found else 'ok'}"
        print(f"{name}: {said}", file=sys.stderr, flush=True)
        if args.out:
            args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if failed := [name for name, found in result["parts"].items() if "error" in found]:
        sys.exit(f"error: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

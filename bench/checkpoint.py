"""What a checkpoint takes of a rank's memory and of rank 0's time:

    torchrun --nproc-per-node 2 bench/checkpoint.py [--out FILE.json] [--before] [--vocabulary 40000 80000]
    python bench/checkpoint.py --size 1.5b --out FILE.json

For a random bf16 Qwen2 model of each vocabulary (or of a size), distributed optimizer: the peak of memory above the
actor while it is saved and loaded, in bytes per parameter, of every rank (of the GPU where there is one; and of the
host, sampled); seconds of rank 0 from "every file is written" to the checkpoint's name; seconds to save, to load, and
to copy the state that is to be written while training goes on. --before: the same with megatron-core's writer and
SHA-256 over all files on rank 0, as it was (it needs the tests of a checkout).
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from common import SIZES, HostPeak, make_model, synchronise
from megatron.core import parallel_state
from transformers import AutoModelForCausalLM, Qwen2Config

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.checkpoint import load_actor
from gcpo_mcore.actor.checkpoint_writer import CheckpointWriter, save_actor
from gcpo_mcore.actor.config import ALL_WEIGHTS, ModelConfig
from gcpo_mcore.actor.layout import check_layout
from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.base import platform
from gcpo_mcore.base.collectives import from_every_rank, from_rank_0
from gcpo_mcore.base.sums import sum_file
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.run.folder import RunFolder
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.manifest import read_manifest
from gcpo_mcore.run.setup import process_group


def build(model: str) -> Actor:
    """An actor with the distributed optimizer over all ranks."""
    config = load_config(["parallel.distributed_optimizer=true"])
    arch = read_architecture(model)
    layout = check_layout(config.parallel, arch)
    start_parallel(layout, seed=0)
    return Actor(
        ModelConfig(path=model, dtype="bfloat16", adapter=ALL_WEIGHTS), arch, config.parallel, layout, config.optimizer,
        temperature=1.0, sequences_per_microbatch=1, tokens_per_microbatch=None,
    )  # fmt: skip


def save_before(actor: Actor, checkpoint: Path) -> float:
    """megatron-core's writer, then SHA-256 of everything on rank 0; the seconds of the latter."""
    from tests.actor.old_checkpoint import write_as_before

    write_as_before(actor, checkpoint)
    started = time.monotonic()
    if dist.get_rank() == 0:
        for path in (checkpoint / "shards").iterdir():
            sum_file(path, "sha256")
    return time.monotonic() - started


def measure(model: str, folder: Path, before: bool) -> dict:
    """The figures of one model, of all ranks where they have their own."""
    run, actor = RunFolder(folder), build(model)
    parameters = sum(p.numel() for p in actor.stage().parameters())
    found: dict = {"parameters": parameters}
    with begun(run, 1), measured("save", parameters, found):
        if before:
            found["naming_s"] = save_before(actor, run.temporary(1))
        else:
            found["naming_s"] = save_now(actor, run)
    if not before:
        with measured("load", parameters, found):
            load_actor(actor, run.folder(1), read_manifest(run.folder(1)).files)
        with begun(run, 2):
            with measured("copy", parameters, found):
                writer = CheckpointWriter(actor, run.temporary(2), is_snapshot=True)
            writer.start()
            writer.finish()
    parallel_state.destroy_model_parallel()
    return found


@contextmanager
def begun(run: RunFolder, step: int) -> Iterator[None]:
    """Makes the folder of a checkpoint that is to be written."""
    if dist.get_rank() == 0:
        run.begin_checkpoint(step, {})
    dist.barrier()
    yield
    dist.barrier()


@contextmanager
def measured(name: str, parameters: int, found: dict) -> Iterator[None]:
    """Puts the seconds and peaks of what is done meanwhile into `found`."""
    platform.reset_phase_memory()
    synchronise()
    host, resident, started = HostPeak(), platform.phase_memory_gib(), time.monotonic()
    with host.watched():
        yield
        synchronise()
    found[f"{name}_s"] = time.monotonic() - started
    grown = (platform.phase_memory_gib() - resident) * 2**30 / parameters
    found[f"{name}_bytes_per_parameter"] = from_every_rank(round(grown, 2))
    found[f"{name}_host_bytes_per_parameter"] = from_every_rank(round(host.bytes / parameters, 2))


def save_now(actor: Actor, run: RunFolder) -> float:
    """Saves and names; seconds of the latter."""
    sums = save_actor(actor, run.temporary(1))
    written = time.monotonic()
    if dist.get_rank() == 0:
        run.finish_checkpoint(1, actor.arch, sums)
    return time.monotonic() - written


def make(folder: Path, vocabulary: int) -> None:
    """A random model, most of it in many layers."""
    AutoModelForCausalLM.from_config(
        Qwen2Config(
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=8,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=vocabulary,
            tie_word_embeddings=False,
            dtype="bfloat16",
        )
    ).to(torch.bfloat16).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--before", action="store_true")
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[40_000, 80_000])
    parser.add_argument("--size", choices=SIZES, help="instead of --vocabulary")
    args = parser.parse_args()
    results = []
    with process_group(threads=None if platform.HAS_CUDA else 1, deadline_s=900), tempfile.TemporaryDirectory() as mine:
        place = Path(from_rank_0(mine))
        for kind in [args.size] if args.size else args.vocabulary:
            if dist.get_rank() == 0:
                make_model(place / f"model{kind}", kind, "bfloat16") if args.size else make(
                    place / f"model{kind}", kind
                )
            dist.barrier()
            results.append(measure(str(place / f"model{kind}"), place / f"run{kind}", args.before))
            dist.barrier()
        if dist.get_rank() == 0:
            print("\n".join(json.dumps(result) for result in results))
            if args.out:
                args.out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()

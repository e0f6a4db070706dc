"""A checkpoint as a Hugging Face folder, and back:

    python tools/convert.py to-hf RUN OUT [--step N] [--dtype bfloat16] [--shard-gib 2]
    python tools/convert.py to-megatron HF_DIR OUT [--dtype float32]
    python tools/convert.py from-gguf FILE.gguf OUT [--dtype bfloat16]

RUN is a run folder (runs/NAME: its newest good checkpoint, or --step) or one checkpoint folder in it, of any layout.
to-megatron writes such a folder with one checkpoint, step 0. Both run as one process on the CPU and never hold more
than a shard and a layer. OUT appears whole or not at all, after the logits of both sides were compared.

from-gguf has transformers dequantise a GGUF file (which needs the `gguf` package) into a Hugging Face folder to train
from. It holds the whole model.
"""

import json
import re
import sys
from pathlib import Path

from gcpo_mcore.base import program
from gcpo_mcore.base.errors import EXIT_CODE, UserError
from gcpo_mcore.monitor.run_log import log_to_stderr

DTYPES = ("float32", "bfloat16")
DEADLINE_S = 1800


def to_hf(run: Path, out: Path, step: int | None, dtype: str | None, shard_bytes: int) -> None:
    """Writes `out` from the checkpoint. UserError if there is none, or `out` exists."""
    from omegaconf import OmegaConf

    from gcpo_mcore.run.folder import RunFolder, check
    from gcpo_mcore.run.manifest import named_versions
    from gcpo_mcore.run.setup import process_group

    given = run
    run, step = _run_and_step(run, step)
    folder = RunFolder(run)
    if not folder.steps():
        raise UserError(f"{given} is no run folder with checkpoints")
    checkpoint = folder.newest_good() if step is None else folder.folder(step)
    if checkpoint is None:
        raise UserError(f"{run} has no good checkpoint")
    if problem := check(checkpoint):
        raise UserError(f"{checkpoint}: {problem}")
    _check_tokenizer(folder.path / "model")
    _prepare(out)
    own = OmegaConf.load(folder.path / "config.yaml").model.dtype
    with process_group(threads=None, deadline_s=DEADLINE_S):
        from gcpo_mcore.convert.convert import checkpoint_to_hf

        with named_versions(checkpoint):
            difference = checkpoint_to_hf(checkpoint, folder.path / "model", own, out, dtype or own, shard_bytes)
    print(f"{checkpoint} -> {out}  (largest logit difference to the checkpoint: {difference:.1e})")


def to_megatron(hf_folder: Path, out: Path, dtype: str | None) -> None:
    """Writes `out` from the folder. UserError if it is not a model that the actor carries, or `out` exists."""
    from gcpo_mcore.run.setup import process_group

    _check_tokenizer(hf_folder)
    _prepare(out)
    raw = json.loads((hf_folder / "config.json").read_text())
    own = raw.get("dtype") or raw.get("torch_dtype")
    with process_group(threads=None, deadline_s=DEADLINE_S):
        from gcpo_mcore.convert.convert import hf_to_checkpoint

        difference = hf_to_checkpoint(hf_folder, dtype or (own if own in DTYPES else "float32"), out)
    print(f"{hf_folder} -> {out}  (largest logit difference to the folder: {difference:.1e})")


def from_gguf(file: Path, out: Path, dtype: str) -> None:
    """Writes `out`, the dequantised model with its tokenizer. UserError if it cannot be read or is not carried."""
    import importlib.util

    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"from-gguf needs the {package} package: pip install 'gcpo-mcore[gguf]'")
    if not file.is_file():
        raise UserError(f"{file}: there is no such file")
    _prepare(out)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from gcpo_mcore.base.files import named_when_good
    from gcpo_mcore.hf.architecture import read_architecture

    where, kind = str(file.parent), getattr(torch, dtype)
    try:
        # Without GgufConfig the weights keep their quantised form, which cannot be saved.
        model = AutoModelForCausalLM.from_pretrained(
            where, gguf_file=file.name, dtype=kind, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=file.name)
    except (ValueError, OSError) as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}") from None
    with named_when_good(out) as unchecked:
        model.save_pretrained(unchecked)
        tokenizer.save_pretrained(unchecked)
        read_architecture(str(unchecked))
    print(f"{file} -> {out}  ({sum(p.numel() for p in model.parameters()):,} parameters, {dtype})")


def _run_and_step(path: Path, step: int | None) -> tuple[Path, int | None]:
    """The run folder, and the step that was asked for. A run may have any name, that of a checkpoint's folder too."""
    place = path.absolute()
    found = re.fullmatch(r"step_(\d+)", place.name)
    if found is None or place.parent.name != "checkpoints" or (place / "checkpoints").is_dir():
        return path, step
    if step not in (None, int(found[1])):
        raise UserError(f"--step {step}: {path} is the checkpoint of step {int(found[1])}")
    return place.parents[1], int(found[1])


def _check_tokenizer(folder: Path) -> None:
    """UserError for an architecture that is not carried, and for a tokenizer larger than the model's vocabulary."""
    from gcpo_mcore.hf.architecture import read_architecture
    from gcpo_mcore.run.plan import load_tokenizer

    arch = read_architecture(str(folder))
    if any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        load_tokenizer(str(folder), arch)


def _prepare(out: Path) -> None:
    if out.exists():
        raise UserError(f"{out} exists; remove it or choose another name")
    out.parent.mkdir(parents=True, exist_ok=True)


@log_to_stderr()
def main() -> None:
    parser = program.parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("to-hf", help="a run's checkpoint -> a Hugging Face folder")
    command.add_argument("run", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("--step", type=int, help="default: the newest good one")
    command.add_argument("--dtype", choices=DTYPES, help="of the written weights; default: the checkpoint's")
    command.add_argument("--shard-gib", type=float, default=2.0, help="largest safetensors file (default: 2)")
    command = commands.add_parser("to-megatron", help="a Hugging Face folder -> a checkpoint at step 0")
    command.add_argument("hf_folder", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("--dtype", choices=DTYPES, help="of the written weights; default: the folder's")
    command = commands.add_parser("from-gguf", help="a GGUF file -> a Hugging Face folder")
    command.add_argument("file", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="of the written weights")
    args = parser.parse_args()
    from gcpo_mcore.base import platform

    platform.give_memory_back()
    try:
        if args.command == "to-hf":
            to_hf(args.run, args.out, args.step, args.dtype, int(args.shard_gib * 2**30))
        elif args.command == "from-gguf":
            from_gguf(args.file, args.out, args.dtype)
        else:
            to_megatron(args.hf_folder, args.out, args.dtype)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_CODE)


if __name__ == "__main__":
    main()

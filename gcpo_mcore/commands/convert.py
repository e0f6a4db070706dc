"""A checkpoint as a Hugging Face folder, and back:

    python tools/convert.py to-hf RUN OUT [--step N] [--dtype bfloat16] [--shard-gib 2] [--base HF_DIR] [--no-gate]
    python tools/convert.py to-peft RUN OUT [--step N] [--base HF_DIR]
    python tools/convert.py to-megatron HF_DIR OUT [--dtype float32] [--no-gate]
    python tools/convert.py from-gguf FILE.gguf OUT [--dtype bfloat16]

RUN is a run folder (runs/NAME: its newest good checkpoint, or --step) or one checkpoint folder in it, of any layout.
Of a run with model/adapter=lora, to-hf merges the adapter into its base, which has to be the folder of the run (or
--base), and to-peft writes it alone, for the peft library (base: what it names as the model).
to-megatron writes such a folder with one checkpoint, step 0. Both run as one process on the CPU and hold no more
than a shard and a layer. OUT appears whole or not at all, after it was compared with what transformers loads from the
Hugging Face side, which holds the model, mapped from its files where it can be; --no-gate leaves that out.

from-gguf has transformers dequantise a GGUF file (which needs the `gguf` package) into a Hugging Face folder to train
from. It holds the whole model.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gcpo_mcore.base import program
from gcpo_mcore.base.errors import EXIT_CODE, UserError
from gcpo_mcore.base.files import places_told
from gcpo_mcore.monitor.run_log import log_to_stderr

if TYPE_CHECKING:  # slow to import
    from gcpo_mcore.run.folder import RunFolder

DTYPES = ("float32", "bfloat16")
BASE = "folder of the model that an adapter was trained beside; default: where the run had it"
UNGATED = (
    "do not compare the result with what transformers loads: for models that do not fit into this machine's memory"
)


def to_hf(
    run: Path, out: Path, step: int | None, dtype: str | None, shard_bytes: int, base: str | None, is_gated: bool
) -> None:
    """Writes `out` from the checkpoint. UserError if there is none, or `out` exists."""
    folder, checkpoint = _checkpoint(run, step)
    _check_tokenizer(folder.path / "model")
    _check_new(out)
    from gcpo_mcore.convert.convert import ExportSettings, checkpoint_to_hf
    from gcpo_mcore.run.manifest import named_versions

    settings = ExportSettings(dtype, shard_bytes, is_gated, base=base)
    with named_versions(checkpoint):
        difference = checkpoint_to_hf(folder, _step_of(checkpoint), out, settings)
    print(f"{checkpoint} -> {out}  ({_said(difference, 'checkpoint')})")


def to_peft(run: Path, out: Path, step: int | None, base: str | None) -> None:
    """Writes `out`, the adapter of the checkpoint. UserError if there is none, or `out` exists."""
    folder, checkpoint = _checkpoint(run, step)
    _check_new(out)
    from gcpo_mcore.convert.convert import checkpoint_to_peft
    from gcpo_mcore.run.manifest import named_versions

    with named_versions(checkpoint):
        checkpoint_to_peft(folder, _step_of(checkpoint), out, base)
    print(f"{checkpoint} -> {out}")


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step_"))


def _checkpoint(run: Path, step: int | None) -> tuple["RunFolder", Path]:
    """The run's folder and its checkpoint of `step` (None: the newest good one), which is good. UserError without."""
    from gcpo_mcore.run.folder import RunFolder, check

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
    return folder, checkpoint


def to_megatron(hf_folder: Path, out: Path, dtype: str | None, is_gated: bool) -> None:
    """Writes `out` from the folder. UserError if it is not a model that the actor carries, or `out` exists."""
    _check_tokenizer(hf_folder)
    _check_new(out)
    raw = json.loads((hf_folder / "config.json").read_text())
    own = raw.get("dtype") or raw.get("torch_dtype")
    from gcpo_mcore.convert.convert import hf_to_checkpoint

    difference = hf_to_checkpoint(hf_folder, dtype or (own if own in DTYPES else "float32"), out, is_gated)
    print(f"{hf_folder} -> {out}  ({_said(difference, 'folder')})")


def _said(difference: float | None, source: str) -> str:
    return "not compared" if difference is None else f"largest logit difference to the {source}: {difference:.1e}"


def from_gguf(file: Path, out: Path, dtype: str) -> None:
    """Writes `out`, the dequantised model with its tokenizer. UserError if it cannot be read or is not carried."""
    import importlib.util

    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"from-gguf needs the {package} package: pip install 'gcpo-mcore[gguf]'")
    if not file.is_file():
        raise UserError(f"{file}: there is no such file")
    _check_new(out)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from gcpo_mcore.base.files import make_folder, named_when_good
    from gcpo_mcore.hf.architecture import read_architecture
    from gcpo_mcore.hf.files import give_modes_of_umask

    make_folder(out.parent)
    where, kind = str(file.parent), getattr(torch, dtype)
    try:
        # Without GgufConfig the weights keep their quantised form, which cannot be saved.
        model = AutoModelForCausalLM.from_pretrained(
            where,
            gguf_file=file.name,
            dtype=kind,
            quantization_config=GgufConfig(dequantize=True),
            trust_remote_code=False,
        )
        tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=file.name, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}") from None
    with named_when_good(out) as unchecked:
        model.save_pretrained(unchecked)
        tokenizer.save_pretrained(unchecked)
        give_modes_of_umask(unchecked)
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


def _check_new(out: Path) -> None:
    if os.path.lexists(out):
        raise UserError(f"{out} exists; remove it or choose another name")


@log_to_stderr()
def main() -> None:
    parser = program.parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = program.add_command(commands, "to-hf", __doc__, help="a run's checkpoint -> a Hugging Face folder")
    command.add_argument("run", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("--step", type=int, help="default: the newest good one")
    command.add_argument("--dtype", choices=DTYPES, help="of the written weights; default: the checkpoint's")
    command.add_argument("--no-gate", action="store_true", help=UNGATED)
    command.add_argument("--shard-gib", type=float, default=2.0, help="largest safetensors file (default: 2)")
    command.add_argument("--base", help=BASE)
    command = program.add_command(commands, "to-peft", __doc__, help="a checkpoint's adapter -> a PEFT folder")
    command.add_argument("run", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("--step", type=int, help="default: the newest good one")
    command.add_argument("--base", help=BASE)
    command = program.add_command(
        commands, "to-megatron", __doc__, help="a Hugging Face folder -> a checkpoint at step 0"
    )
    command.add_argument("hf_folder", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("--dtype", choices=DTYPES, help="of the written weights; default: the folder's")
    command.add_argument("--no-gate", action="store_true", help=UNGATED)
    command = program.add_command(commands, "from-gguf", __doc__, help="a GGUF file -> a Hugging Face folder")
    command.add_argument("file", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="of the written weights")
    args = parser.parse_args()
    from gcpo_mcore.base import platform

    platform.give_memory_back()
    try:
        with places_told():
            if args.command == "to-hf":
                size = int(args.shard_gib * 2**30)
                to_hf(args.run, args.out, args.step, args.dtype, size, args.base, not args.no_gate)
            elif args.command == "to-peft":
                to_peft(args.run, args.out, args.step, args.base)
            elif args.command == "from-gguf":
                from_gguf(args.file, args.out, args.dtype)
            else:
                to_megatron(args.hf_folder, args.out, args.dtype, not args.no_gate)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_CODE)


if __name__ == "__main__":
    main()

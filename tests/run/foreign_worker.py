"""Reads a run folder and a Hugging Face folder in which each file in turn runs code in whoever unpickles it.

    python foreign_worker.py RUN HF OUT MARKER

Prints a line of JSON for each file and form: its name, the error (null: it was converted all the same), and whether
code of the file's ran.
"""

import json
import shutil
import sys
from pathlib import Path

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.commands.convert import to_hf, to_megatron
from tests.hostile_pickle import fit_manifest, forms

run, hf, out, marker = map(Path, sys.argv[1:])
SHARD_BYTES = 2**30


def convert(is_checkpoint: bool) -> str | None:
    try:
        if is_checkpoint:
            to_hf(run, out, None, None, SHARD_BYTES, base=None, is_gated=False)
        else:
            to_megatron(hf, out, None, is_gated=True)
    except UserError as error:
        return str(error)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return None


def attempt(name: str, is_checkpoint: bool) -> None:
    error = convert(is_checkpoint)
    print("told", json.dumps([name, error, marker.exists()]), flush=True)
    shutil.rmtree(marker, ignore_errors=True)


def each_form_of(folder: Path, file: Path, is_checkpoint: bool) -> None:
    whole = file.read_bytes() if file.exists() else None
    is_torch = file.suffix in (".pt", ".distcp", ".bin") or file.name == ".metadata"
    for form, content in forms(marker).items():
        if form != "pickle" and not is_torch:
            continue
        file.write_bytes(content)
        if is_checkpoint and "checkpoints" in file.parts:
            checkpoint = run / "checkpoints/step_000000"
            if file.name not in ("manifest.json", "manifest.sum"):
                fit_manifest(checkpoint, str(file.relative_to(checkpoint)))
        attempt(f"{file.relative_to(folder)} ({form})", is_checkpoint)
    if whole is None:
        file.unlink()
    else:
        file.write_bytes(whole)
    if is_checkpoint and "checkpoints" in file.parts:
        fit_manifest(run / "checkpoints/step_000000")


def own_code(folder: Path) -> None:
    """A model and a tokenizer of classes in the folder itself: what transformers runs if it is told to trust it."""
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    for name, classes in (
        ("config.json", {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["code.T", None]}),
    ):
        file = folder / name
        told = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(told | {"auto_map": classes, "tokenizer_class": "T"}))


files = [*sorted(p for p in run.rglob("*") if p.is_file()), run / "checkpoints/step_000000/rank_00000.pt"]
for file in files:
    each_form_of(run, file, is_checkpoint=True)
(hf / "model.safetensors").rename(hf.parent / "weights")
each_form_of(hf, hf / "pytorch_model.bin", is_checkpoint=False)
(hf.parent / "weights").rename(hf / "model.safetensors")
for file in sorted(p for p in hf.rglob("*") if p.is_file()):
    each_form_of(hf, file, is_checkpoint=False)
own_code(hf)
attempt("code.py", is_checkpoint=False)
own_code(run / "model")
attempt("code.py", is_checkpoint=True)

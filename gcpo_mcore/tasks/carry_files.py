"""What the quick start begins with: the carry task's files, an untrained model, one that knows the easy problems (the
starter) and a larger one that knows all (a teacher). Each appears whole or not at all, and is reused if it is there.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.files import jsonl, named_when_good, write_atomically
from gcpo_mcore.base.program import command
from gcpo_mcore.hf.files import give_modes_of_umask
from gcpo_mcore.tasks import carry


class Shape(TypedDict):
    """Sizes of a Qwen2 model, as its config calls them."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int


STARTER: Shape = {  # 594,688 parameters
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 384,
}
TEACHER: Shape = {  # 1,769,664 parameters
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "intermediate_size": 576,
}
ENDINGS = {"train_easy": ".jsonl", "train_hard": ".parquet", "eval_easy": ".jsonl", "eval_hard": ".jsonl"}


def make_data(out: Path, seed: int) -> list[str]:
    """Write the four data files, then the manifest that says they are complete; a line to print about each file.

    UserError if others are there.
    """
    manifest = out / "manifest.json"
    there = manifest.is_file()
    if there:
        files = _checked(manifest, seed)["files"]
    else:
        files = {}
        for stem, rows in carry.make(seed).items():
            content = jsonl(rows).encode() if ENDINGS[stem] == ".jsonl" else _parquet(rows)
            files[stem + ENDINGS[stem]] = {"rows": len(rows), **_sums(content)}
            write_atomically(out / (stem + ENDINGS[stem]), content)
        write_atomically(manifest, json.dumps({"task": "carry", "seed": seed, "files": files}, indent=2) + "\n")
    return [
        f"{out / name}: {about['rows']:>6,} rows {about['bytes']:>10,} bytes  sha256 {about['sha256']}"
        + ("  (already there)" if there else "")
        for name, about in files.items()
    ]


def make_init(out: Path, seed: int) -> str:
    """Write OUT/init: the untrained model, its tokenizer and its generation defaults; a line to print about it."""
    return _make_model(out / "init", seed, STARTER)


def make_starter(out: Path, seed: int, processes: int) -> str:
    """Write OUT/starter: train OUT/init on the easy problems with the real trainer, and convert the checkpoint; a line
    to print about it."""
    return _train_model(out / "starter", "carry_warmup", out / "warmup", seed, processes)


def make_teacher(out: Path, processes: int) -> list[str]:
    """Write OUT/teacher_init and OUT/teacher, for data that is in OUT already: a larger model, which is trained on all
    golden answers, those of the hard problems too. A line to print about each."""
    manifest = out / "manifest.json"
    if not manifest.is_file():
        raise UserError(f"{out}: no data there; `{command('prepare')} --out {out} --skip-starter` makes it")
    seed = json.loads(manifest.read_text())["seed"]
    initial = _make_model(out / "teacher_init", seed, TEACHER)
    return [initial, _train_model(out / "teacher", "carry_teacher", out / "teacher_training", seed, processes)]


def _make_model(folder: Path, seed: int, shape: Shape) -> str:
    if folder.is_dir():
        return f"{folder}: already there"
    import torch  # here, so that data alone needs no torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    tokenizer = carry.make_tokenizer()
    pad, bos, eos = (tokenizer.get_vocab()[token] for token in carry.SPECIALS[:3])
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        **shape,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        dtype="float32",
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
    )
    with named_when_good(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        give_modes_of_umask(temporary)
    return f"{folder}: {sum(p.numel() for p in model.parameters()):,} parameters"


def _train_model(final: Path, experiment: str, run: Path, seed: int, processes: int) -> str:
    """Write the folder `final`: run configs/experiment/EXPERIMENT.yaml, which writes `run`, and convert the result."""
    if final.is_dir():
        return f"{final}: already there"
    shutil.rmtree(run, ignore_errors=True)  # left by a call that was killed
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    overrides = [f"experiment={experiment}", f"prepared={final.parent}", f"seed={seed}"]
    try:
        with named_when_good(final) as folder:
            _python(*launch, "-m", "gcpo_mcore.commands.train", *overrides)
            _python("-m", "gcpo_mcore.commands.convert", "to-hf", str(run), str(folder))
    finally:
        shutil.rmtree(run, ignore_errors=True)
    return f"{final}: trained as configs/experiment/{experiment}.yaml says"


def _checked(manifest: Path, seed: int) -> dict:
    """The manifest, if it and the files are what this call would make; else UserError."""
    found = json.loads(manifest.read_text())
    another = "choose another --out or remove the folder"
    if found["seed"] != seed:
        raise UserError(f"{manifest}: was made with seed {found['seed']}, this call has seed {seed}; {another}")
    for name, about in found["files"].items():
        path = manifest.with_name(name)
        if not path.is_file() or _sums(path.read_bytes())["sha256"] != about["sha256"]:
            raise UserError(f"{path}: is not the file that {manifest} describes; {another}")
    return found


def _python(*arguments: str) -> None:
    """Run this Python on the arguments; its output is ours. One thread a process: several share the cores."""
    done = subprocess.run([sys.executable, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode:
        raise UserError(f"exit code {done.returncode} from: python {' '.join(arguments)}")


def _parquet(rows: list[dict[str, str]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def _sums(content: bytes) -> dict:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

"""Make what the quick-start needs: the data of the carry task and a small model that knows its easy problems.

    python tools/prepare.py                       # everything, into prepared/carry-seed0
    python tools/prepare.py --seed 1 --out here   # another split and another model
    python tools/prepare.py --skip-starter        # data and the untrained model only, in seconds
    python tools/prepare.py check [DATA ...]      # instead: look for what is wrong with data (check --help)
    python tools/prepare.py reasoning TASK        # instead: rows of a task of reasoning-gym (reasoning --help)
    python tools/prepare.py champ                 # instead: competition problems with human solutions (champ --help)
    python tools/prepare.py teacher               # beside them: a larger model that knows the hard problems too

    OUT/train_easy.jsonl  train_hard.parquet  eval_easy.jsonl  eval_hard.jsonl
    OUT/manifest.json     seed, rows, bytes and sha256 of the data files
    OUT/init/             a Qwen2 model of 594,688 random parameters, with its tokenizer
    OUT/starter/          the same after 900 supervised steps on train_easy

Every part appears whole or not at all, and a second call reuses the parts that are there. docs/data.md describes them.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gcpo_mcore.data import carry
from gcpo_mcore.errors import EXIT_CODE, UserError

TOOLS = Path(__file__).resolve().parent
STARTER = {  # 594,688 parameters
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 384,
}
TEACHER = {  # 1,769,664 parameters
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "intermediate_size": 576,
}
ENDINGS = {"train_easy": ".jsonl", "train_hard": ".parquet", "eval_easy": ".jsonl", "eval_hard": ".jsonl"}


def make_data(out: Path, seed: int) -> None:
    """Write the four data files, then the manifest that says they are complete. UserError if others are there."""
    manifest = out / "manifest.json"
    there = manifest.is_file()
    if there:
        files = _checked(manifest, seed)["files"]
    else:
        files = {}
        for stem, rows in carry.make(seed).items():
            content = _jsonl(rows) if ENDINGS[stem] == ".jsonl" else _parquet(rows)
            files[stem + ENDINGS[stem]] = {"rows": len(rows), **_sums(content)}
            _write(out / (stem + ENDINGS[stem]), content)
        _write(manifest, (json.dumps({"task": "carry", "seed": seed, "files": files}, indent=2) + "\n").encode())
    for name, about in files.items():
        size = f"{about['rows']:>6,} rows {about['bytes']:>10,} bytes"
        print(f"{out / name}: {size}  sha256 {about['sha256']}{'  (already there)' if there else ''}")


def make_init(out: Path, seed: int) -> None:
    """Write OUT/init: the untrained model, its tokenizer and its generation defaults."""
    _make_model(out / "init", seed, STARTER)


def make_starter(out: Path, seed: int, processes: int) -> None:
    """Write OUT/starter: train OUT/init on the easy problems with the real trainer, and convert the checkpoint."""
    _train_model(out / "starter", "carry_warmup", out / "warmup", seed, processes)


def make_teacher(out: Path, processes: int) -> None:
    """Write OUT/teacher_init and OUT/teacher, for data that is in OUT already: a larger model, which is trained on all
    golden answers, those of the hard problems too."""
    manifest = out / "manifest.json"
    if not manifest.is_file():
        raise UserError(f"{out}: no data there; `python tools/prepare.py --out {out} --skip-starter` makes it")
    seed = json.loads(manifest.read_text())["seed"]
    _make_model(out / "teacher_init", seed, TEACHER)
    _train_model(out / "teacher", "carry_teacher", out / "teacher_training", seed, processes)


def _make_model(folder: Path, seed: int, shape: dict[str, int]) -> None:
    if _is_there(folder):
        return
    import torch  # here, so that data alone needs no torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    tokenizer = carry.make_tokenizer()
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        **shape,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        dtype="float32",
        **ends,
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, **ends)
    with _whole(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    print(f"{folder}: {sum(p.numel() for p in model.parameters()):,} parameters")


def _train_model(final: Path, experiment: str, run: Path, seed: int, processes: int) -> None:
    """Write the folder `final`: run configs/experiment/EXPERIMENT.yaml, which writes `run`, and convert the result."""
    if _is_there(final):
        return
    shutil.rmtree(run, ignore_errors=True)  # left by a call that was killed
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    overrides = [f"experiment={experiment}", f"prepared={final.parent}", f"seed={seed}"]
    try:
        with _whole(final) as folder:
            _python(*launch, str(TOOLS / "train.py"), *overrides)
            _python(str(TOOLS / "convert.py"), "to-hf", str(run), str(folder))
    finally:
        shutil.rmtree(run, ignore_errors=True)
    print(f"{final}: trained as configs/experiment/{experiment}.yaml says")


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


def _is_there(folder: Path) -> bool:
    if folder.is_dir():
        print(f"{folder}: already there")
    return folder.is_dir()


def _python(*arguments: str) -> None:
    """Run this Python on the arguments; its output is ours. One thread a process: several share the cores."""
    done = subprocess.run([sys.executable, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode:
        raise UserError(f"exit code {done.returncode} from: python {' '.join(arguments)}")


@contextmanager
def _whole(final: Path) -> Iterator[Path]:
    """A path to make a folder at; it becomes `final` when the block ends well and vanishes when it does not."""
    folder = final.with_name(f".{final.name}-{os.getpid()}")
    try:
        yield folder
        folder.rename(final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def _jsonl(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _parquet(rows: list[dict[str, str]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def _sums(content: bytes) -> dict:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def check(arguments: list[str]) -> int:
    """Report what is wrong with data sets, and put bad rows into a side file with the reason; 1 if there are any."""
    parser = argparse.ArgumentParser(
        prog="prepare.py check",
        description="Check data with the tokenizer, limits and reward that a run with the same settings would use.",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="DATA|key=value",
        help="files, folders or hf:NAME (none: the sources of the config), and settings as for tools/train.py",
    )
    parser.add_argument("--bad", type=Path, default=Path("bad_rows.jsonl"), help="side file (default: %(default)s)")
    given = parser.parse_intermixed_args(arguments)
    paths, settings = [w for w in given.words if _is_path(w)], [w for w in given.words if not _is_path(w)]

    from gcpo_mcore.actor.architecture import read_architecture
    from gcpo_mcore.config.load import load_config
    from gcpo_mcore.curation.check import PROBLEMS, Checker
    from gcpo_mcore.files import write_atomically
    from gcpo_mcore.monitor.tables import print_results
    from gcpo_mcore.plan import load_tokenizer
    from gcpo_mcore.rewarding.grader import Grader

    config = load_config(settings)
    sources = {path: path for path in paths} or {
        **{f"train {name}": source.path for name, source in config.data.train.items()},
        **{f"eval {name}": source.path for name, source in config.data.eval.items()},
    }
    tokenizer = load_tokenizer(config.model.path, read_architecture(config.model.path))
    with Grader(config.reward) as grader:
        checker = Checker(config, tokenizer, grader)
        checked = [checker.check(name, path) for name, path in sources.items()]
    columns = ["source", "shape", "rows", "with golden", "bad rows"]
    used = [p for p in PROBLEMS if any(c.counts()[p] for c in checked)]
    print_results(f"reward {config.reward.accuracy}", columns + used, [c.counts() for c in checked])
    findings = [f for c in checked for f in c.findings]
    for problem in used:
        first = next(f for f in findings if f.problem == problem)
        print(f"{problem}, the first: {first.where}: {first.detail}")
    write_atomically(given.bad, "".join(f.line() + "\n" for f in findings))
    print(f"{len(findings)} problems, in {given.bad}" if findings else "nothing is wrong")
    return 1 if findings else 0


def reasoning(arguments: list[str]) -> int:
    """Write the rows of a reasoning-gym task, with golden answers where its metadata gives a worked solution."""
    from gcpo_mcore.data import reasoning as recipe

    parser = argparse.ArgumentParser(
        prog="prepare.py reasoning",
        description="Write rows of a reasoning-gym task. With golden answers: " + ", ".join(recipe.SOLUTIONS),
    )
    parser.add_argument("task", metavar="TASK")
    parser.add_argument("--rows", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other problems (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="default: prepared/TASK-seed{SEED}.jsonl")
    given = parser.parse_args(arguments)
    out = given.out or Path(f"prepared/{given.task}-seed{given.seed}.jsonl")
    _write_rows(out, recipe.make(given.task, given.rows, given.seed))
    return 0


def champ(arguments: list[str]) -> int:
    """Write the problems of CHAMP with their solutions as golden answers."""
    from gcpo_mcore.data import champ as recipe

    parser = argparse.ArgumentParser(
        prog="prepare.py champ", description="Write CHAMP's competition problems with their human-written solutions."
    )
    parser.add_argument("--all", action="store_true", help="also those whose answer is not one number")
    parser.add_argument("--out", type=Path, default=Path("prepared/champ.jsonl"), help="default: %(default)s")
    given = parser.parse_args(arguments)
    _write_rows(given.out, recipe.make(with_other_answers=given.all))
    return 0


def teacher(arguments: list[str]) -> int:
    """Write a larger model that solves the hard problems, to take golden answers from."""
    parser = argparse.ArgumentParser(
        prog="prepare.py teacher", description="Train a model three times the starter's size on all golden answers."
    )
    parser.add_argument("--out", type=Path, default=Path("prepared/carry-seed0"), help="where the data is")
    parser.add_argument("--processes", type=int, default=1, help="that train it (default: %(default)s)")
    given = parser.parse_args(arguments)
    make_teacher(given.out, given.processes)
    return 0


def _write_rows(out: Path, rows: list[dict]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    _write(out, _jsonl(rows))
    print(f"{out}: {len(rows)} rows, {sum(r['golden_answer'] is not None for r in rows)} with a golden answer")


def _is_path(word: str) -> bool:
    """hf:NAME?split=train and what exists are data; of the rest, what has an '=' is a setting."""
    return word.startswith("hf:") or "=" not in word or Path(word).exists()


def main() -> int:
    commands = {"check": check, "reasoning": reasoning, "champ": champ, "teacher": teacher}
    if command := commands.get("".join(sys.argv[1:2])):
        try:
            return command(sys.argv[2:])
        except UserError as error:
            print(f"prepare: {error}", file=sys.stderr)
            return EXIT_CODE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="decides the held-out problems, the order and the weights")
    parser.add_argument("--out", type=Path, help="where to write (default: prepared/carry-seed{SEED})")
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        help="how many processes train the starter (default: 1; the weights depend on it in rounding)",
    )
    parser.add_argument("--skip-starter", action="store_true", help="make the data and OUT/init only")
    arguments = parser.parse_args()
    out = arguments.out or Path(f"prepared/carry-seed{arguments.seed}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        make_data(out, arguments.seed)
        make_init(out, arguments.seed)
        if not arguments.skip_starter:
            make_starter(out, arguments.seed, arguments.processes)
    except UserError as error:
        print(f"prepare: {error}", file=sys.stderr)
        return EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())

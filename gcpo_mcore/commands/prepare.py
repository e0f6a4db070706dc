"""Make what the quick-start needs: the data of the carry task and a small model that knows its easy problems.

    python tools/prepare.py                       # everything, into prepared/carry-seed0
    python tools/prepare.py --seed 1 --out here   # another split and another model
    python tools/prepare.py --skip-starter        # data and the untrained model only, in seconds
    python tools/prepare.py check [DATA ...]      # instead: look for what is wrong with data (check --help)
    python tools/prepare.py prompts [key=value]   # instead: tokenise large data before a run does (prompts --help)
    python tools/prepare.py reasoning TASK        # instead: rows of a task of reasoning-gym (reasoning --help)
    python tools/prepare.py champ                 # instead: competition problems with human solutions (champ --help)
    python tools/prepare.py from-verl FILE.yaml   # instead: a configuration of verl as our command (from-verl --help)
    python tools/prepare.py teacher               # beside them: a larger model that knows the hard problems too

    OUT/train_easy.jsonl  train_hard.parquet  eval_easy.jsonl  eval_hard.jsonl
    OUT/manifest.json     seed, rows, bytes and sha256 of the data files
    OUT/init/             a Qwen2 model of 594,688 random parameters, with its tokenizer
    OUT/starter/          the same after 900 supervised steps on train_easy

Every part appears whole or not at all, and a second call reuses the parts that are there. docs/data.md describes them.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from gcpo_mcore.base import program
from gcpo_mcore.base.errors import EXIT_CODE, UserError
from gcpo_mcore.base.files import jsonl, places_told, write_atomically
from gcpo_mcore.monitor.run_log import log_to_stderr
from gcpo_mcore.tasks.carry_files import make_data, make_init, make_starter, make_teacher


def check(arguments: list[str]) -> int:
    """Report what is wrong with data sets, and put bad rows into a side file with the reason; 1 if there are any."""
    parser = argparse.ArgumentParser(
        prog=f"{program.name()} check",
        description="Check data with the tokenizer, limits and reward that a run with the same settings would use.",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="DATA|key=value",
        help=f"files, folders, hf:NAME (none: the config's sources), and settings as for {program.command('train')}",
    )
    parser.add_argument("--bad", type=Path, default=Path("bad_rows.jsonl"), help="side file (default: %(default)s)")
    given = parser.parse_intermixed_args(arguments)
    paths, settings = [w for w in given.words if _is_path(w)], [w for w in given.words if not _is_path(w)]

    from gcpo_mcore.curation.check import PROBLEMS, Checker
    from gcpo_mcore.hf.hub import local_folder
    from gcpo_mcore.monitor.tables import print_results
    from gcpo_mcore.rewarding.grader import Grader
    from gcpo_mcore.run.load import load_config
    from gcpo_mcore.run.plan import load_text

    config = load_config(settings)
    sources = {path: path for path in paths} or {
        **{f"train {name}": source.path for name, source in config.data.train.items()},
        **{f"eval {name}": source.path for name, source in config.data.eval.items()},
    }
    folder = local_folder(config.model.path)
    arch, tokenizer, ends = load_text(folder, config.rollout.stop_token_ids)
    with Grader(config.reward) as grader:
        checker = Checker(config, tokenizer, grader, arch.vocabulary, ends.ids)
        checked = [checker.check(name, path, not name.startswith("eval ")) for name, path in sources.items()]
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


def prompts(arguments: list[str]) -> int:
    """Prepare the prompts of the config's large sources in the cache, so that a run starts with them at once."""
    parser = argparse.ArgumentParser(
        prog=f"{program.name()} prompts",
        description="Tokenise the sources above data.cache.above_mib into data.cache.folder, where a run finds them.",
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help=f"as for {program.command('train')}")
    parser.add_argument("--processes", type=int, default=1, help="that share the work (default: %(default)s)")
    given = parser.parse_intermixed_args(arguments)

    from gcpo_mcore.monitor.tables import print_results

    with ProcessPoolExecutor(max(given.processes - 1, 1), get_context("spawn")) as pool:
        others = [pool.submit(_prepared, given.settings) for _ in range(given.processes - 1)]
        rows = _prepared(given.settings)
        for other in others:
            other.result()
    print_results("prompts", ["source", "rows", "prompts", "with golden", "in"], rows)
    return 0


def _prepared(settings: list[str]) -> list[dict[str, object]]:
    """Loads all sources as a run does; a row of the report for each."""
    from gcpo_mcore.data.dataset import load_eval, load_train
    from gcpo_mcore.data.prepared import Prepared
    from gcpo_mcore.hf.hub import local_folder
    from gcpo_mcore.run.load import load_config
    from gcpo_mcore.run.plan import load_text

    config = load_config(settings)
    folder = local_folder(config.model.path)
    arch, tokenizer, ends = load_text(folder, config.rollout.stop_token_ids)
    found = [
        (kind, source)
        for kind, load in (("train", load_train), ("eval", load_eval))
        for source in load(config.data, tokenizer, arch.vocabulary, ends.ids).values()
    ]
    return [
        {
            "source": f"{kind} {one.source}",
            "rows": one.rows,
            "prompts": len(one.prompts),
            "with golden": one.with_golden,
            "in": str(one.prompts.folder) if isinstance(one.prompts, Prepared) else "memory, at each start",
        }
        for kind, one in found
    ]


def reasoning(arguments: list[str]) -> int:
    """Write the rows of a reasoning-gym task, with golden answers where its metadata gives a worked solution."""
    from gcpo_mcore.tasks import reasoning as recipe

    parser = argparse.ArgumentParser(
        prog=f"{program.name()} reasoning",
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
    from gcpo_mcore.tasks import champ as recipe

    parser = argparse.ArgumentParser(
        prog=f"{program.name()} champ",
        description="Write CHAMP's competition problems with their human-written solutions.",
    )
    parser.add_argument("--all", action="store_true", help="also those whose answer is not one number")
    parser.add_argument("--out", type=Path, default=Path("prepared/champ.jsonl"), help="default: %(default)s")
    given = parser.parse_args(arguments)
    _write_rows(given.out, recipe.make(with_other_answers=given.all))
    return 0


def from_verl(arguments: list[str]) -> int:
    """Print the command that a configuration of verl is with us, and its keys that have no counterpart."""
    from gcpo_mcore.migration import from_verl as translate

    parser = argparse.ArgumentParser(
        prog=f"{program.name()} from-verl",
        description="Print a yaml of verl, whole or of a few keys, as our command; what has no counterpart is listed.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.yaml")
    print(translate(parser.parse_args(arguments).file).told())
    return 0


def teacher(arguments: list[str]) -> int:
    """Write a larger model that solves the hard problems, to take golden answers from."""
    parser = argparse.ArgumentParser(
        prog=f"{program.name()} teacher",
        description="Train a model three times the starter's size on all golden answers.",
    )
    parser.add_argument("--out", type=Path, default=Path("prepared/carry-seed0"), help="where the data is")
    parser.add_argument("--processes", type=int, default=1, help="that train it (default: %(default)s)")
    given = parser.parse_args(arguments)
    _say(*make_teacher(given.out, given.processes))
    return 0


def _say(*lines: str) -> None:
    """Prints what was made, at once: training the starter takes a while."""
    print(*lines, sep="\n", flush=True)


def _write_rows(out: Path, rows: list[dict]) -> None:
    write_atomically(out, jsonl(rows))
    print(f"{out}: {len(rows)} rows, {sum(r['golden_answer'] is not None for r in rows)} with a golden answer")


def _is_path(word: str) -> bool:
    """hf:NAME?split=train and what exists are data; of the rest, what has an '=' is a setting."""
    return word.startswith("hf:") or "=" not in word or Path(word).exists()


@log_to_stderr()
def main() -> int:
    instead = {
        "check": check, "prompts": prompts, "reasoning": reasoning, "champ": champ, "from-verl": from_verl,
        "teacher": teacher,
    }  # fmt: skip
    if chosen := instead.get("".join(sys.argv[1:2])):
        try:
            with places_told():
                return chosen(sys.argv[2:])
        except UserError as error:
            print(f"prepare: {error}", file=sys.stderr)
            return EXIT_CODE
    parser = program.parser(__doc__)
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
        with places_told():
            out.mkdir(parents=True, exist_ok=True)
            _say(*make_data(out, arguments.seed), make_init(out, arguments.seed))
            if not arguments.skip_starter:
                _say(make_starter(out, arguments.seed, arguments.processes))
    except UserError as error:
        print(f"prepare: {error}", file=sys.stderr)
        return EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Make golden answers, have a policy write them anew, and make them worse on purpose.

    python tools/golden.py fill IN OUT.jsonl --column solution [key=value ...]
    python tools/golden.py fill IN OUT.jsonl --teacher http://localhost:30000/v1 --model NAME [--tries 8]
        [--keep likeliest --policy MODEL_FOLDER]
    python tools/golden.py fill IN OUT.jsonl --teacher-model FOLDER --max-tokens 1024 --parallel 64 [--tries 8]
    python tools/golden.py rewrite IN OUT.jsonl --policy FOLDER --max-tokens 1024 [--share 0.25,0.5]
        [--ask TEXT] [--begin TEXT] [--drop-old]
    python tools/golden.py degrade IN OUT.jsonl [--truncate 0.5] [--corrupt 0.2] [--wrong-answer 0.1] [key=value ...]

IN is a file, a folder or hf:NAME as in a data config; key=value are settings as for tools/train.py (reward=..., and
data=files): what counts as right is what the run's own reward says. docs/golden.md has the details.
"""

import argparse
import contextlib
import json
import os
import re
import sys
from pathlib import Path

from gcpo_mcore.base import program
from gcpo_mcore.base.errors import EXIT_CODE, UserError, nearest
from gcpo_mcore.base.files import places_told
from gcpo_mcore.monitor.run_log import log_to_stderr


def fill(given, config, rows, grader) -> None:
    """Writes the rows with golden answers, from where the command line says."""
    origin = _from_column if given.column else _from_server if given.teacher else _from_model
    with origin(given, config, rows) as (source, propose, settings, refusals):
        choice = {"shortest": _shortest, "likeliest": _likeliest}[given.keep](given, config)
        settings |= {"replace": given.replace}
        _written(given, config, rows, grader, source, propose, choice, settings, refusals, given.replace, False)


def rewrite(given, config, rows, grader) -> None:
    """Writes the rows with golden answers that the policy wrote itself, having been shown theirs."""
    from gcpo_mcore.curation.rewrite import Shown

    if "{prompt}" not in given.ask:
        raise UserError("--ask: has no {prompt}")
    if "{golden}" not in given.ask + given.begin:
        raise UserError("--ask and --begin: neither has {golden}, so the golden answer is not shown")
    shown = {"ask": given.ask, "begin": given.begin, "shares": given.share}

    def starts(encoder):
        return Shown(**shown, data=config.data, encoder=encoder).starts

    with _sampled(given, config, given.policy, starts) as (propose, settings, refusals):
        settings |= shown | {"drop_old": given.drop_old}
        choice = _likeliest(given, config)
        source = f"rewrite:{given.policy}"
        _written(given, config, rows, grader, source, propose, choice, settings, refusals, True, not given.drop_old)


def _written(
    given, config, rows, grader, source, propose, choice, settings, refusals, replace: bool, keep_old: bool
) -> None:
    """Writes OUT from the candidates of `propose`, and prints what became of the rows."""
    from gcpo_mcore.curation import fill as filling
    from gcpo_mcore.monitor.progress import Work

    choose, chosen_by = choice
    settings |= chosen_by | {"reward": config.reward.model_dump(mode="json")}
    with Work("rows", len(rows)) as work:
        ends = filling.fill(
            rows,
            given.out,
            propose,
            choose,
            source,
            config.data,
            grader,
            given.parallel,
            replace,
            settings,
            work.advance,
            keep_old,
        )
    print(f"{given.out}: {len(rows)} rows; " + ", ".join(f"{n} {end}" for end, n in sorted(ends.items())))
    if refusals:
        print(f"the teacher refused {len(refusals)} prompts, the first: {refusals[0]}", file=sys.stderr)


# Where candidates come from. Each gives what golden_source says, the function that proposes candidates for rows, the
# settings that they depend on, and the list into which refusals of prompts are written meanwhile.


@contextlib.contextmanager
def _from_column(given, config, rows):
    from gcpo_mcore.data.files import value_at

    if all(value_at(row.values, given.column) is None for row in rows):
        raise UserError(f"{given.input}: no row has a column '{given.column}'{nearest(given.column, rows[0].values)}")
    try:
        unwanted = re.compile(given.strip)
    except re.error as error:
        raise UserError(f"--strip {given.strip}: not a regular expression: {error}") from None

    def propose(row, columns) -> list[str]:
        text = value_at(row.values, given.column)
        if text is not None and not isinstance(text, str):
            raise UserError(f"{row.where}: column '{given.column}' is of type {type(text).__name__}, not a string")
        text = unwanted.sub("", text or "").rstrip()
        return [text + given.suffix.replace("{answer}", columns.answers(row)[0])] if text else []

    settings = {"column": given.column, "strip": given.strip, "suffix": given.suffix}
    yield f"column:{given.column}", lambda rows, columns: [propose(row, columns) for row in rows], settings, []


@contextlib.contextmanager
def _from_server(given, config, rows):
    from concurrent.futures import ThreadPoolExecutor

    from gcpo_mcore.curation.teacher import Teacher
    from gcpo_mcore.data.dataset import messages_of
    from gcpo_mcore.data.files import prompt_of

    key = os.environ.get(given.api_key_env) if given.api_key_env else None
    if given.api_key_env and not key:
        raise UserError(f"--api-key-env {given.api_key_env}: the variable is not set")
    knobs = {k: getattr(given, k) for k in ("model", "temperature", "max_tokens")}
    teacher = Teacher(
        given.teacher, **knobs, timeout_s=given.timeout_s, requests_per_minute=given.requests_per_minute, api_key=key
    )
    asked = {"system_prompt": config.data.system_prompt, "prompt_suffix": config.data.prompt_suffix}
    with ThreadPoolExecutor(given.parallel) as threads:

        def propose(rows, columns) -> list[list[str]]:
            messages = [messages_of(prompt_of(row, columns.prompt), config.data) for row in rows]
            return list(threads.map(lambda m: teacher.solve(m, given.tries), messages))

        yield f"teacher:{given.model}", propose, {**knobs, **asked, "tries": given.tries}, teacher.refusals


@contextlib.contextmanager
def _from_model(given, config, rows):
    with _sampled(given, config, given.teacher_model, lambda _: None) as (propose, settings, refusals):
        yield f"teacher:{given.teacher_model}", propose, settings, refusals


@contextlib.contextmanager
def _sampled(given, config, name: str, starts):
    """What the model in a Hugging Face folder writes; `starts(encoder)` are a LocalTeacher's."""
    from gcpo_mcore.actor.hf_mapping import HfWeights
    from gcpo_mcore.curation.local_teacher import LocalTeacher
    from gcpo_mcore.data.encoder import Encoder
    from gcpo_mcore.hf.architecture import read_architecture
    from gcpo_mcore.hf.hub import local_folder
    from gcpo_mcore.hf.special_tokens import end_tokens
    from gcpo_mcore.rollout.config import Sampling
    from gcpo_mcore.rollout.engine import FixedWeights
    from gcpo_mcore.run.plan import load_tokenizer
    from gcpo_mcore.run.setup import build_engine, process_group

    folder = local_folder(name)
    arch = read_architecture(folder)
    if given.max_tokens >= arch.max_positions:
        raise UserError(f"--max-tokens {given.max_tokens}: {name} has only {arch.max_positions} positions")
    tokenizer, weights = load_tokenizer(folder, arch), HfWeights(folder, arch)
    ends = end_tokens(folder, tokenizer, arch.vocabulary, config.rollout.stop_token_ids)
    encoder = Encoder(tokenizer, arch.vocabulary, ends.ids)
    sampling = Sampling(temperature=given.temperature, top_p=1.0, top_k=0, max_response_tokens=given.max_tokens)
    with (
        process_group(config.parallel.threads, config.monitor.phase_deadline_s, products=config.parallel.cpu_products),
        contextlib.closing(build_engine(config, folder, tokenizer)) as engine,
    ):
        engine.update_weights(FixedWeights(0, lambda: ((name, weights(name)) for name in weights.names())))
        teacher = LocalTeacher(engine, encoder, config.data, sampling, arch.max_positions, given.tries, config.seed)
        teacher.starts = starts(encoder)
        settings = {"teacher_model": name, "sampling": sampling.model_dump(), "tries": given.tries}
        settings |= {"seed": config.seed, "dtype": config.model.dtype, "rendering": _rendering(config)}
        yield teacher.solve, settings, teacher.refusals


def _rendering(config) -> dict:
    """The settings that a prompt's token ids depend on."""
    return {
        key: getattr(config.data, key)
        for key in ("chat_template", "chat_template_kwargs", "system_prompt", "prompt_suffix")
    }


def _shortest(given, config):
    from gcpo_mcore.curation.fill import shortest

    return shortest, {}


def _likeliest(given, config):
    from gcpo_mcore.curation.likelihood import Policy
    from gcpo_mcore.run.plan import load_text

    _, tokenizer, ends = load_text(given.policy, config.rollout.stop_token_ids)
    settings = {"policy": given.policy, "rendering": _rendering(config)}
    return Policy(given.policy, tokenizer, config.data, ends.ids).choose, settings


def degrade(given, config, rows, grader) -> None:
    """Writes the rows with golden answers made worse."""
    from gcpo_mcore.base.files import write_atomically
    from gcpo_mcore.curation.degrade import degrade as degraded

    if given.out.exists():
        raise UserError(f"{given.out}: is there already; choose another name or remove it")
    knobs = {k: getattr(given, k) for k in ("truncate", "corrupt", "wrong_answer", "step_separator", "seed")}
    made, counts = degraded(rows, config, grader, **knobs)
    write_atomically(given.out, "".join(json.dumps(row, default=str) + "\n" for row in made))
    print(f"{given.out}: {len(rows)} rows; " + ", ".join(f"{name} {n}" for name, n in counts.items()))


def _parser() -> argparse.ArgumentParser:
    parser = program.parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    common.add_argument("input", metavar="IN")
    common.add_argument("out", metavar="OUT.jsonl", type=Path)

    shown = {"formatter_class": program.WithDefaults, "parents": [common]}
    one = program.add_command(commands, "fill", __doc__, help="fill the column golden_answer", **shown)
    origin = one.add_mutually_exclusive_group(required=True)
    origin.add_argument("--column", help="take it from this column")
    origin.add_argument("--teacher", metavar="URL", help="ask this OpenAI-compatible server; with /v1")
    origin.add_argument("--teacher-model", metavar="FOLDER", help="ask this Hugging Face model, in this process")
    one.add_argument("--strip", metavar="REGEX", default="", help="with --column: what matches is taken out first")
    one.add_argument("--suffix", default="", help="with --column: appended; {answer} is the reference answer")
    one.add_argument("--replace", action="store_true", help="also where the row's own golden answer is right")
    one.add_argument(
        "--keep",
        choices=("shortest", "likeliest"),
        default="shortest",
        help="of the right candidates: the shortest, or the likeliest per token under --policy",
    )
    one.add_argument("--policy", metavar="FOLDER", help="with --keep likeliest: the Hugging Face model to be trained")
    one.add_argument("--model", help="the teacher's name on the server")
    one.add_argument("--tries", type=_positive(int), default=4, help="solutions for each prompt; --keep says which")
    one.add_argument("--temperature", type=float, default=0.7)
    one.add_argument("--max-tokens", type=_positive(int), default=2048, help="of one solution")
    one.add_argument("--parallel", type=_positive(int), default=8, help="prompts asked for at a time")
    one.add_argument("--requests-per-minute", type=float, default=0.0, help="0: as fast as the server answers")
    one.add_argument("--timeout-s", type=_positive(float), default=300.0, help="of one request")
    one.add_argument("--api-key-env", metavar="NAME", help="the environment variable that holds the key")

    own = program.add_command(commands, "rewrite", __doc__, help="have the policy write them anew", **shown)
    own.add_argument("--policy", metavar="FOLDER", required=True, help="the Hugging Face model to be trained")
    own.add_argument("--ask", metavar="TEXT", default="{prompt}", help="the prompt, {prompt} and {golden} filled in")
    own.add_argument("--begin", metavar="TEXT", default="{golden}", help="what the answer begins with")
    own.add_argument(
        "--share",
        type=_shares,
        default="0.5",
        help="{golden} is this share of the golden answer's tokens; of several (0.25,0.5) each is tried",
    )
    own.add_argument("--tries", type=_positive(int), default=8, help="answers for each prompt and share")
    own.add_argument("--temperature", type=float, default=1.0)
    own.add_argument("--max-tokens", type=_positive(int), default=2048, help="of what the policy adds")
    own.add_argument("--parallel", type=_positive(int), default=8, help="prompts asked for at a time")
    own.add_argument("--drop-old", action="store_true", help="no golden answer where none of the new ones is right")

    two = program.add_command(commands, "degrade", __doc__, help="make golden answers worse", **shown)
    two.add_argument(
        "--truncate", type=_share, default=0.0, help="drop this share of the steps, from the last one back"
    )
    two.add_argument("--corrupt", type=_share, default=0.0, help="change a digit in this share of the steps")
    two.add_argument(
        "--wrong-answer", type=_share, default=0.0, help="change the final answer in this share of the rows"
    )
    two.add_argument("--step-separator", default=r"\n+|;|[.!?] ", help="a regular expression; a step ends behind it")
    two.add_argument("--seed", type=int, default=0)
    return parser


def _positive(kind):
    def positive(text: str):
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return positive


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _shares(text: str) -> list[float]:
    return [_positive(_share)(share) for share in text.split(",")]


@log_to_stderr()
def main() -> int:
    """The command."""
    parser = _parser()
    given, settings = parser.parse_known_args()  # settings may stand anywhere
    if strange := [word for word in settings if word.startswith("-") or "=" not in word]:
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    if given.command == "fill" and bool(given.teacher) != bool(given.model):
        parser.error("--teacher and --model go together")
    if given.command == "fill" and (given.keep == "likeliest") != bool(given.policy):
        parser.error("--keep likeliest and --policy go together")

    from gcpo_mcore.data.files import read_rows
    from gcpo_mcore.rewarding.grader import Grader
    from gcpo_mcore.run.load import load_config

    try:
        config = load_config(settings)
        rows = read_rows(given.input)
        with places_told(), Grader(config.reward) as grader:
            {"fill": fill, "rewrite": rewrite, "degrade": degrade}[given.command](given, config, rows, grader)
    except UserError as error:
        print(f"golden: {error}", file=sys.stderr)
        return EXIT_CODE
    except KeyboardInterrupt:
        print(f"golden: stopped; the same call goes on from {given.out}.part", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

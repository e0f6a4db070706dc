"""The problems of a benchmark, from a local file or the hub, as prompts."""

import importlib.util
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from gcpo_mcore.base.errors import UserError, nearest
from gcpo_mcore.data.encoder import Encoder, Text
from gcpo_mcore.data.files import read_rows, unread
from gcpo_mcore.data.readers import hub_rows
from gcpo_mcore.evaluation.config import Benchmark
from gcpo_mcore.samples import Prompt


def load_problems(
    name: str, benchmark: Benchmark, tokenizer, vocabulary: int | None = None, end_ids: Collection[int] = ()
) -> list[Prompt]:
    """Every problem as a prompt. UserError, naming file and row, for one that cannot be asked or graded.

    `vocabulary` and `end_ids` are the model's, as in Encoder.
    """
    encoder = Encoder(tokenizer, vocabulary, end_ids)
    prompts = []
    for number, (where, values) in enumerate(_rows(name, benchmark)):
        problem = str(_required(where, values, benchmark.columns.problem)).strip()
        options = benchmark.columns.options and _options(_required(where, values, benchmark.columns.options))
        prompt = _render(where, benchmark, encoder, problem, options)
        if len(prompt.ids) > benchmark.max_prompt_tokens:
            raise UserError(
                f"{where}: the prompt has {len(prompt.ids)} tokens, the limit is {benchmark.max_prompt_tokens} "
                f"(benchmark.{name}.max_prompt_tokens)"
            )
        reference = _reference(where, values, benchmark)
        prompts.append(Prompt(f"{name}:{number}", name, prompt.text, prompt.ids, reference, columns=values))
    return prompts


def _rows(name: str, benchmark: Benchmark) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pairs (where, columns) of each row: of the local file if it is there, else of the hub's data set."""
    path, hub = Path(benchmark.path), benchmark.hub
    for local in (path, path.with_suffix(".parquet")):
        if local.is_file():
            for row in read_rows(str(local), benchmark.max_problems):
                yield row.where, row.values
            return
    page = f"https://huggingface.co/datasets/{hub.name}"
    which = f"{hub.subset}, {hub.split}" if hub.subset else hub.split
    if importlib.util.find_spec("datasets") is None:
        raise UserError(
            f"benchmark {name}: there is no file {path}. Download {page} ({which}) and save its rows there as jsonl or "
            f"parquet with the columns {_columns(benchmark)}, or `pip install datasets` to have it fetched"
        )
    import datasets

    try:
        rows = datasets.load_dataset(hub.name, hub.subset, split=hub.split)
    except Exception as error:  # no network, no such set, no right to it: each with an exception of its own
        raise UserError(
            f"benchmark {name}: {hub.name} could not be fetched ({' '.join(str(error).split())[:200]}); "
            f"save {page} ({which}) as {path} by hand"
        ) from None
    for read in unread(hub_rows(rows, f"{hub.name} ({which})"), hub.name, benchmark.max_problems):
        row = read()
        yield row.where, row.values


def _columns(benchmark: Benchmark) -> str:
    return ", ".join(c for c in (benchmark.columns.problem, benchmark.columns.answer, benchmark.columns.options) if c)


def _required(where: str, values: dict[str, Any], column: str) -> Any:
    if values.get(column) is None or values[column] == "":
        raise UserError(f"{where}: there is no '{column}'{nearest(column, values)}; columns: {', '.join(values)}")
    return values[column]


def _reference(where: str, values: dict[str, Any], benchmark: Benchmark) -> str:
    """The reference answer as text. A list of one (OlympiadBench) is that one, a longer one is joined with commas."""
    value = _required(where, values, benchmark.columns.answer)
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if benchmark.answer_after is not None:
        _, found, text = text.rpartition(benchmark.answer_after)
        if not found:
            raise UserError(f"{where}: '{benchmark.columns.answer}' has no '{benchmark.answer_after}'")
    if not text.strip():
        raise UserError(f"{where}: '{benchmark.columns.answer}' is empty")
    return text.strip()


def _options(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _render(where: str, benchmark: Benchmark, encoder: Encoder, problem: str, options: str | None) -> Text:
    """The prompt as the model reads it. Not str.format: problems are full of braces."""
    column = benchmark.columns.problem
    message = benchmark.prompt.replace("{options}", options or "").replace("{problem}", problem)
    if not benchmark.chat_template:
        if benchmark.system_prompt is not None:
            raise UserError(f"{where}: system_prompt needs chat_template=true")
        return encoder.plain(where, column, message)
    if not encoder.tokenizer.chat_template:
        raise UserError(f"{where}: the tokenizer has no chat template; set chat_template=false for a base model")
    messages = [{"role": "user", "content": message}]
    if benchmark.system_prompt is not None:
        messages.insert(0, {"role": "system", "content": benchmark.system_prompt})
    return encoder.chat(where, column, messages, benchmark.chat_template_kwargs)

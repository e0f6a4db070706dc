"""Rows and a tokenizer become prompts; data/encoder.py turns their text into token ids."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.config import DataConfig
from gcpo_mcore.data.encoder import Encoder, Text
from gcpo_mcore.data.files import Row, prompt_of, read_rows
from gcpo_mcore.data.messages import Message
from gcpo_mcore.data.shapes import Columns, columns_of
from gcpo_mcore.samples import Prompt


@dataclass(frozen=True)
class Loaded:
    """The prompts of one source, and what to print: the shape of its rows, rows read, rows dropped as overlong."""

    source: str
    path: str
    shape: str
    prompts: list[Prompt]
    rows: int
    dropped: int

    @property
    def with_golden(self) -> int:
        """The number of prompts that have a golden answer."""
        return sum(p.golden_ids is not None for p in self.prompts)

    def golden_over(self, tokens: int) -> int:
        """The number of golden answers that are longer than that, and so never injected."""
        return sum(p.golden_ids is not None and len(p.golden_ids) > tokens for p in self.prompts)


def load_train(
    config: DataConfig, tokenizer, vocabulary: int | None = None, end_ids: Collection[int] = ()
) -> dict[str, Loaded]:
    """Every training source, in the order of the config; `vocabulary` and `end_ids` as in `load`."""
    sources = {name: source for name, source in config.train.items() if source.weight > 0}
    return {
        name: load(
            name, s.path, config, tokenizer, s.max_rows, s.max_golden_rows, config.curriculum.check, vocabulary, end_ids
        )
        for name, s in sources.items()
    }


def load_eval(
    config: DataConfig, tokenizer, vocabulary: int | None = None, end_ids: Collection[int] = ()
) -> dict[str, Loaded]:
    """Every evaluation source, in the order of the config; `vocabulary` and `end_ids` as in `load`."""
    return {
        name: load(name, s.path, config, tokenizer, s.max_rows, vocabulary=vocabulary, end_ids=end_ids)
        for name, s in config.eval.items()
    }


def load(
    source: str,
    path: str,
    config: DataConfig,
    tokenizer,
    max_rows: int | None = None,
    max_golden_rows: int | None = None,
    check: Callable[[Row], None] = lambda row: None,
    vocabulary: int | None = None,
    end_ids: Collection[int] = (),
) -> Loaded:
    """Reads one source and tokenises it; rows from number `max_golden_rows` on lose their golden answer.

    `check` may refuse a row with a UserError. `vocabulary` and `end_ids` are the model's, as in Encoder.

    UserError, one line with file and row, for a row that cannot become a prompt, and if all rows were dropped.
    """
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-sequence token; golden answers and sampling need one")
    rows = read_rows(path, max_rows)
    columns = columns_of(rows[0], config.keys)
    for row in rows:
        check(row)
    encoder = Encoder(tokenizer, vocabulary, end_ids)
    made = [prompt_from(row, columns, source, config, encoder) for row in rows]
    prompts = [p for p in made if p is not None]
    if max_golden_rows is not None:
        prompts = [_without_golden(p) if i >= max_golden_rows else p for i, p in enumerate(prompts)]
    if not prompts:
        raise UserError(f"{path}: all {len(rows)} prompts are longer than {config.max_prompt_tokens} tokens")
    return Loaded(source, path, columns.shape, prompts, len(rows), len(rows) - len(prompts))


def _without_golden(prompt: Prompt) -> Prompt:
    return replace(prompt, golden_ids=None, golden_text=None)


def prompt_from(row: Row, columns: Columns, source: str, config: DataConfig, encoder: Encoder) -> Prompt | None:
    """One row as a prompt; None if it is overlong and such rows are dropped."""
    answer, *others = columns.answers(row)
    written = columns.golden_answer(row)
    prompt = render(row, columns.prompt, config, encoder)
    if len(prompt.ids) > config.max_prompt_tokens:
        if config.overlong_prompts == "drop":
            return None
        raise UserError(
            f"{row.where}: the prompt has {len(prompt.ids)} tokens, the limit is {config.max_prompt_tokens}"
            " (data.max_prompt_tokens; data.overlong_prompts=drop leaves such rows out)"
        )
    golden = None
    if written is not None and columns.golden is not None:
        golden = golden_text(row, columns, config, encoder, prompt, written, columns.golden.column)
    return Prompt(
        f"{source}:{row.number}",
        source,
        prompt.text,
        prompt.ids,
        answer,
        golden and golden.ids,
        golden and golden.text,
        row.values,
        tuple(others),
    )


def render(row: Row, column: str, config: DataConfig, encoder: Encoder) -> Text:
    """The prompt as the model reads it."""
    prompt = prompt_of(row, column)
    if not isinstance(prompt, str) or config.chat_template:
        return encoder.chat(row.where, column, messages_of(prompt, config), config.chat_template_kwargs)
    if config.system_prompt is not None:
        raise UserError(f"{row.where}: data.system_prompt needs data.chat_template=true for a prompt that is a string")
    return encoder.plain(row.where, column, prompt + config.prompt_suffix)


def golden_text(
    row: Row, columns: Columns, config: DataConfig, encoder: Encoder, prompt: Text, written: str, column: str
) -> Text:
    """A golden answer of column `column` as the model should write it behind the row's rendered `prompt`."""
    is_plain = isinstance(prompt_of(row, columns.prompt), str) and not config.chat_template
    settings = None if is_plain else config.chat_template_kwargs
    return encoder.golden(row.where, column, written, prompt.text, settings)


def messages_of(prompt: str | list[Message], config: DataConfig) -> list[Message]:
    """The prompt as messages, with suffix and system prompt; a system message of the row's own stays instead."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    last = {**messages[-1], "content": messages[-1]["content"] + config.prompt_suffix}
    messages = [*messages[:-1], last]
    if config.system_prompt is not None and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": config.system_prompt}, *messages]
    return messages

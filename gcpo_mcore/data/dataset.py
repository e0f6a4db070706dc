"""Rows and a tokenizer become prompts; data/encoder.py turns their text into token ids."""

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.config import CacheConfig, DataConfig
from gcpo_mcore.data.curriculum import Curriculum
from gcpo_mcore.data.encoder import Encoder, Text
from gcpo_mcore.data.files import Row, prompt_of, unread_rows
from gcpo_mcore.data.identity import name_of, size_mib
from gcpo_mcore.data.messages import Message
from gcpo_mcore.data.prepared import Prepared
from gcpo_mcore.data.preparing import Made, prepare
from gcpo_mcore.data.prompts import Listed, Prompts
from gcpo_mcore.data.shapes import Columns, columns_of
from gcpo_mcore.samples import Prompt


@dataclass(frozen=True)
class Loaded:
    """The prompts of one source, and what to print: the shape of its rows, rows read, rows dropped as overlong."""

    source: str
    path: str
    shape: str
    prompts: Prompts
    rows: int

    @property
    def dropped(self) -> int:
        """The number of rows that were left out as overlong."""
        return self.rows - len(self.prompts)

    @property
    def with_golden(self) -> int:
        """The number of prompts that have a golden answer."""
        return int(np.count_nonzero(self.prompts.golden_tokens()))  # each has its end token at least

    def golden_over(self, tokens: int) -> int:
        """The number of golden answers that are longer than that, and so never injected."""
        return int(np.count_nonzero(self.prompts.golden_tokens() > tokens))


def load_train(
    config: DataConfig, tokenizer, vocabulary: int | None = None, end_ids: Collection[int] = ()
) -> dict[str, Loaded]:
    """Every training source, in the order of the config; `vocabulary` and `end_ids` as in `load`."""
    sources = {name: source for name, source in config.train.items() if source.weight > 0}
    return {
        name: load(
            name, s.path, config, tokenizer, s.max_rows, s.max_golden_rows, config.curriculum, vocabulary, end_ids
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
    curriculum: Curriculum | None = None,
    vocabulary: int | None = None,
    end_ids: Collection[int] = (),
) -> Loaded:
    """Reads one source and tokenises it; prompts from place `max_golden_rows` on lose their golden answer.

    `curriculum` may refuse a row; None: no order is needed. `vocabulary` and `end_ids` are the model's, as in Encoder.
    A source of more than `config.cache.above_mib` is made once for all processes that call this.

    UserError, one line with file and row, for a row that cannot become a prompt, and if all rows were dropped.
    """
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-sequence token; golden answers and sampling need one")
    maker = Maker(source, path, config, tokenizer, max_rows, curriculum, vocabulary, tuple(sorted(end_ids)))
    if size_mib(path) > config.cache.above_mib:
        loaded = _prepared(maker, config.cache, max_golden_rows)
    else:
        loaded = _listed(maker, max_golden_rows)
    if not len(loaded.prompts):
        raise UserError(f"{path}: all {loaded.rows} prompts are longer than {config.max_prompt_tokens} tokens")
    return loaded


@dataclass(frozen=True)
class Maker:
    """Makes the prompts of a source from its rows; the parameters are those of `load`."""

    source: str
    path: str
    config: DataConfig
    tokenizer: Any
    max_rows: int | None
    curriculum: Curriculum | None
    vocabulary: int | None
    end_ids: tuple[int, ...]

    def rows(self) -> Iterator[Callable[[], Row]]:
        """The source from its beginning: for each row what reads it."""
        return unread_rows(self.path, self.max_rows)

    @cached_property
    def columns(self) -> Columns:
        """The places in the rows, by the first of them."""
        return columns_of(next(self.rows())(), self.config.keys)

    @cached_property
    def encoder(self) -> Encoder:
        """Makes text token ids."""
        return Encoder(self.tokenizer, self.vocabulary, self.end_ids)

    def make(self, row: Row) -> Made | None:
        """The prompt of a row; None if it is left out."""
        if self.curriculum is not None:
            self.curriculum.check(row)
        prompt = prompt_from(row, self.columns, self.source, self.config, self.encoder)
        number = self.curriculum.number(row.values) if self.curriculum is not None else None
        return Made(prompt, row.number, number) if prompt is not None else None


def _listed(maker: Maker, max_golden_rows: int | None) -> Loaded:
    made = [maker.make(read()) for read in maker.rows()]
    prompts = [one.prompt for one in made if one is not None]
    if max_golden_rows is not None:
        prompts = [_without_golden(p) if i >= max_golden_rows else p for i, p in enumerate(prompts)]
    return Loaded(maker.source, maker.path, maker.columns.shape, Listed(prompts), len(made))


def _without_golden(prompt: Prompt) -> Prompt:
    return replace(prompt, golden_ids=None, golden_text=None)


def _prepared(maker: Maker, cache: CacheConfig, max_golden_rows: int | None) -> Loaded:
    name = name_of(
        maker.source, maker.path, maker.max_rows, maker.config, maker.curriculum, maker.tokenizer, maker.vocabulary,
        maker.end_ids,
    )  # fmt: skip
    folder = cache_folder(cache) / name
    prepare(folder, maker.rows, maker.make, lambda: maker.columns.shape)
    prompts = Prepared(folder, maker.source, max_golden_rows)
    return Loaded(maker.source, maker.path, prompts.meta["shape"], prompts, prompts.meta["rows"])


def cache_folder(cache: CacheConfig) -> Path:
    """Where prepared prompts are: the configured folder, or the one in the user's cache."""
    if cache.folder is not None:
        return Path(cache.folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gcpo_mcore"


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

"""The one place where text becomes token ids: prompts of training, evaluation and teachers, and golden answers.

A prompt begins with the tokenizer's begin token at most once and never ends with a token that ends a response. A
golden answer ends as a sampled one does, with one end token. What cannot be so is a UserError with file and row.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.messages import Message
from gcpo_mcore.data.sound import said
from gcpo_mcore.data.template import Turn, apply_template, assistant_turn
from gcpo_mcore.hf.special_tokens import frame_tokens
from gcpo_mcore.rewarding.thinking import THINK_START, opens_thinking

PROBES = ("a", "0", ".")  # texts that show what a tokenizer adds; the first that it has tokens for is enough
ENCODE = ("encode", "__call__", "_encode_plus", "_batch_encode_plus")  # what a class overrides for rules of its own


@dataclass(frozen=True)
class Text:
    """Text, and the token ids that it became."""

    text: str
    ids: list[int]


class Encoder:
    """Text -> token ids for one model.

    vocabulary  the model's rows, the ids that it can read; None: any
    end_ids     the tokens that end a response, besides the tokenizer's own
    """

    def __init__(self, tokenizer: Any, vocabulary: int | None = None, end_ids: Collection[int] = ()):
        self.tokenizer, self.vocabulary = tokenizer, vocabulary
        self._frame = frame_tokens(tokenizer, end_ids)
        self._ends = self._frame & {tokenizer.eos_token_id, *end_ids}
        self._turns: dict[str, Turn] = {}
        self._end_tokens: dict[str, int] = {}  # by what closes a turn

    def plain(self, where: str, column: str, text: str) -> Text:
        """A prompt that is used as it is, behind what the tokenizer puts before plain text (BOS)."""
        ids = self._encoded(where, column, text)
        if ids and ids[: len(self._begin)] != self._begin:
            ids = self._begin + ids
        return self._prompt(where, column, text, ids, opening="")

    def chat(self, where: str, column: str, messages: list[Message], settings: dict[str, Any]) -> Text:
        """A prompt of messages, through the chat template, which writes all special tokens itself."""
        text = apply_template(where, messages, settings, self.tokenizer)
        return self._prompt(where, column, text, self._encoded(where, column, text), self._turn(settings).opening)

    def golden(self, where: str, column: str, text: str, prompt: str, settings: dict[str, Any] | None) -> Text:
        """A golden answer as a sampled response to `prompt` would be, from its first token to its end token.

        Left out is what frames it twice: the header of the assistant's turn and a <think> that the prompt has already,
        the end of the turn, end tokens. `settings` are the chat template's; None: the prompt is plain text.
        """
        turn = Turn("", "") if settings is None else self._turn(settings)
        text = _without_opening(text, turn.opening, prompt)
        ids = self._encoded(where, column, text)
        end = next((place for place, token in enumerate(ids) if token in self._frame), len(ids))
        rest = ids[end:]
        if any(i not in self._frame and self.tokenizer.decode([i]).strip() for i in rest):
            raise UserError(
                f"{where}: column '{column}' has {self._name(rest[0])} inside, which no response goes on after"
            )
        if not end:
            raise UserError(f"{where}: column '{column}' has no tokens but those that frame an answer")
        written = text.partition(self.tokenizer.convert_ids_to_tokens(rest[0]))[0] if rest else text
        return Text(written, self._readable(where, column, [*ids[:end], self._end_of(turn)]))

    def _prompt(self, where: str, column: str, text: str, ids: list[int], opening: str) -> Text:
        while len(ids) > 1 and ids[0] == ids[1] == self.tokenizer.bos_token_id:
            ids = ids[1:]
        if not ids:
            raise UserError(f"{where}: column '{column}' has no tokens")
        if ids[-1] in self._ends and ids[-1:] != self._encode(opening)[-1:]:
            raise UserError(f"{where}: column '{column}' ends with {self._name(ids[-1])}, which ends a response")
        return Text(text, self._readable(where, column, ids))

    def _readable(self, where: str, column: str, ids: list[int]) -> list[int]:
        """`ids`. UserError if the model has no row for one: a tokenizer may have more tokens, or gaps between them."""
        if self.vocabulary is not None and (largest := max(ids)) >= self.vocabulary:
            raise UserError(
                f"{where}: column '{column}' has token id {largest}, the model has {self.vocabulary} rows of "
                "embeddings (vocab_size of its config.json)"
            )
        return ids

    def _encode(self, text: str) -> list[int]:
        backend = self._backend
        if backend is None or backend.truncation is not None or backend.padding is not None:
            return self.tokenizer.encode(text, add_special_tokens=False)
        return backend.encode(text, add_special_tokens=False).ids

    @cached_property
    def _backend(self) -> Any:
        """What encodes behind a tokenizer whose class adds no rule: half of a small run's start was the way there.

        None where there is none, or where a class has an `encode` of its own.
        """
        from transformers import PreTrainedTokenizerFast  # slow to import

        own, plain = type(self.tokenizer), PreTrainedTokenizerFast
        if not isinstance(self.tokenizer, plain):
            return None
        if any(getattr(own, name, None) is not getattr(plain, name, None) for name in ENCODE):
            return None
        self.tokenizer.encode(PROBES[0], add_special_tokens=False)  # settles what the backend makes of special tokens
        return self.tokenizer.backend_tokenizer

    def _encoded(self, where: str, column: str, text: str) -> list[int]:
        try:
            return self._encode(text)
        except Exception as error:  # a tokenizer may be Python from elsewhere
            raise UserError(f"{where}: column '{column}' cannot be made tokens: {said(error)}") from None

    def _turn(self, settings: dict[str, Any]) -> Turn:
        key = repr(settings)
        if key not in self._turns:
            self._turns[key] = assistant_turn(settings, self.tokenizer)
        return self._turns[key]

    def _end_of(self, turn: Turn) -> int:
        """The end token of a response: the one with which the template closes the assistant's turn, or else EOS."""
        if turn.closing not in self._end_tokens:
            closing = (i for i in self._encode(turn.closing) if i in self._ends)
            self._end_tokens[turn.closing] = next(closing, self.tokenizer.eos_token_id)
        return self._end_tokens[turn.closing]

    @cached_property
    def _begin(self) -> list[int]:
        """What the tokenizer puts before plain text; what it puts behind (EOS) would end the prompt."""
        for probe in PROBES:
            bare, whole = self._encode(probe), self.tokenizer.encode(probe)
            for start in range(len(whole) - len(bare) + 1):
                if bare and whole[start : start + len(bare)] == bare:
                    return whole[:start]
        return []

    def _name(self, token: int) -> str:
        return f"the token {self.tokenizer.convert_ids_to_tokens(token)} ({token})"


def _without_opening(text: str, opening: str, prompt: str) -> str:
    """`text` without what the prompt has written before it: the header of a turn, and the thinking opened (or none)."""
    header, start, rest = opening.partition(THINK_START)
    is_open = opens_thinking(prompt)
    begun = start + rest or (prompt[prompt.rindex(THINK_START) :] if is_open else "")
    text = text.removeprefix(header).removeprefix(begun)
    return text.removeprefix(THINK_START) if is_open else text

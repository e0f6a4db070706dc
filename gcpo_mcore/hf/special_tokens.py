"""The special tokens of a Hugging Face folder: which of them end a response, and which only frame it.

transformers lets a chat model end its turn with another token than the tokenizer's: generation_config.json lists them.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcpo_mcore.base.errors import UserError

CONFIGS = ("generation_config.json", "config.json")
# Turn markers by their names, for tokenizers whose template does not show them.
TURN = re.compile(
    r"<[|｜]?(/?s|pad|im_(start|end)|(start|end)_header_id|e[oa][tm](_id)?|eos|bos|end|(start|end)_of_(turn|role)"
    r"|(begin|end)[_▁]of[_▁](text|sentence)|endoftext|system|user|assistant)[|｜]?>|\[/?INST\]",
    re.IGNORECASE,
)
PAIRS = ((re.compile(r"<(?!/)(.+)>"), "</{}>"), (re.compile(r"\[(?!/)(.+)\]"), "[/{}]"))  # a tag and what closes it
PAIRS += ((re.compile(r"<\|begin_of_(.+)\|>"), "<|end_of_{}|>"),)


@dataclass(frozen=True)
class EndTokens:
    """The tokens that end a response: by id their text, and the places that say so."""

    texts: dict[int, str]
    places: dict[int, list[str]]

    @property
    def ids(self) -> list[int]:
        """In ascending order."""
        return sorted(self.texts)

    def __str__(self) -> str:
        return "; ".join(f"{i} {self.texts[i]} ({', '.join(self.places[i])})" for i in self.ids)


def end_tokens(folder: str, tokenizer: Any, vocabulary: int, extra: Sequence[int] = ()) -> EndTokens:
    """Those of the tokenizer, of generation_config.json and config.json in `folder`, and `extra`, the run's own.

    UserError, naming the place, for one that is no id, or that the model with its `vocabulary` rows cannot write.
    """
    found = (
        [] if tokenizer.eos_token_id is None else [("tokenizer", f"{folder}: its tokenizer", tokenizer.eos_token_id)]
    )
    for name in CONFIGS:
        path = Path(folder) / name
        found += [(name, f"{path}: eos_token_id", one) for one in _ends_in(path)]
    found += [("rollout.stop_token_ids", "rollout.stop_token_ids", one) for one in extra]
    places: dict[int, list[str]] = {}
    for place, where, one in found:
        if not 0 <= one < vocabulary:
            raise UserError(f"{where}: token {one} cannot end a response, the model has only {vocabulary} rows")
        places.setdefault(one, [])
        if place not in places[one]:
            places[one].append(place)
    return EndTokens({one: str(tokenizer.convert_ids_to_tokens(one)) for one in places}, places)


def _ends_in(path: Path) -> list[int]:
    if not path.is_file():
        return []
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid json ({error})") from None
    value = raw.get("eos_token_id") if isinstance(raw, dict) else None
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in ids):
        raise UserError(f"{path}: eos_token_id is {value!r}; it has to be a token's id or a list of some")
    return ids


def frame_tokens(tokenizer: Any, end_ids: Iterable[int] = ()) -> frozenset[int]:
    """The tokens around what is said: the tokenizer's begin, end and padding, markers of turns, and those of `end_ids`
    that are no words (a run may end its responses at a line end, which stays).

    Markers are special tokens that the chat template writes around messages, or that have a marker's name. Every other
    special token (<think>, <answer>, <tool_call>) is text that a response says.
    """
    added = tokenizer.added_tokens_decoder
    named = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    special = {i: str(token) for i, token in added.items() if token.special}
    markers = {i for i, text in special.items() if TURN.fullmatch(text)}
    written = {i for i in _written_around(tokenizer) if i in special and not _is_tag(special[i], special.values())}
    ends = {i for i in end_ids if i in added}
    return frozenset({i for i in named if i is not None} | ends | markers | written)


def _is_tag(text: str, known: Collection[str]) -> bool:
    """Whether `text` opens or closes something, and its other half is known too."""
    opening = [closing.format(found[1]) for form, closing in PAIRS if (found := form.fullmatch(text))]
    closes = [
        closing.format(found[1]) == text for one in known for form, closing in PAIRS if (found := form.fullmatch(one))
    ]
    return any(one in known for one in opening) or any(closes)


def _written_around(tokenizer: Any) -> set[int]:
    """The ids of what the chat template writes for messages that say nothing special."""
    user = {"role": "user", "content": "x"}
    for messages in ([{"role": "system", "content": "x"}, user], [user]):
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            return set(tokenizer.encode(text, add_special_tokens=False))
        except Exception:  # there is none, or it refuses a system message: it is a program from elsewhere
            continue
    return set()


def decoder(tokenizer: Any, end_ids: Iterable[int]) -> Callable[[Sequence[int]], str]:
    """A function that makes text of a response's ids: all that it says, without the tokens that frame it."""
    frame = frame_tokens(tokenizer, end_ids)

    def decode(ids: Sequence[int]) -> str:
        return tokenizer.decode([i for i in ids if i not in frame], skip_special_tokens=False)

    return decode

"""The prompts of a source, in the order of its rows: in a list, or where they need not be in memory."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from gcpo_mcore.samples import Prompt

Number = Callable[[dict[str, Any]], float | None]  # the columns of a row -> the number that a curriculum goes by


class Prompts(ABC):
    """What a run asks of the prompts of a source. It is the same for a list and for prompts in a memory map."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, place: int) -> Prompt: ...

    def __iter__(self) -> Iterator[Prompt]:
        return (self[place] for place in range(len(self)))

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """16 hex digits that change when a prompt, its answer, its tokens or the order changes."""

    @abstractmethod
    def digests(self) -> dict[str, str]:
        """Digests of all that a prompt has, by part: rows (the fingerprint), golden answers, columns."""

    @abstractmethod
    def golden_tokens(self) -> np.ndarray:
        """[n] the length of each golden answer in tokens; 0 where there is none."""

    @abstractmethod
    def numbers(self, read: Number) -> np.ndarray:
        """[n] float64, what `read` makes of each prompt's columns; NaN for None."""

    @abstractmethod
    def by_id(self, ids: Collection[str]) -> dict[str, Prompt]:
        """Those of `ids` that are prompts of this source."""

    def order(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """[n] int64, what `make` gives: the order of that name. It may be kept for the next who asks."""
        return make()


class Listed(Prompts):
    """Prompts in memory."""

    def __init__(self, prompts: Iterable[Prompt]):
        self._prompts = list(prompts)

    def __len__(self) -> int:
        return len(self._prompts)

    def __getitem__(self, place: int) -> Prompt:
        return self._prompts[place]

    @cached_property
    def fingerprint(self) -> str:
        """See `Prompts`."""
        return digest_of([row_digest(prompt) for prompt in self])

    def digests(self) -> dict[str, str]:
        """See `Prompts`."""
        return digests(self.fingerprint, [golden_digest(p) for p in self], [columns_digest(p) for p in self])

    def golden_tokens(self) -> np.ndarray:
        """See `Prompts`."""
        return np.array([len(prompt.golden_ids or ()) for prompt in self], np.int64)

    def numbers(self, read: Number) -> np.ndarray:
        """See `Prompts`."""
        return np.array([read(prompt.columns) for prompt in self], np.float64)

    def by_id(self, ids: Collection[str]) -> dict[str, Prompt]:
        """See `Prompts`."""
        return {prompt.id: prompt for prompt in self if prompt.id in ids}


def row_digest(prompt: Prompt) -> int:
    """64 bits that change when the prompt's id, tokens or answers change."""
    return _bits((prompt.id, prompt.token_ids, prompt.answer, *prompt.other_answers))


def golden_digest(prompt: Prompt) -> int:
    """64 bits that change with the golden answer; 0 if there is none."""
    return _bits((prompt.golden_ids, prompt.golden_text)) if prompt.golden_ids is not None else 0


def columns_digest(prompt: Prompt) -> int:
    """64 bits that change with a column of the prompt's row, which rewards may read."""
    return _bits(prompt.columns)


def _bits(content: Any) -> int:
    return int.from_bytes(hashlib.blake2b(repr(content).encode(), digest_size=8).digest(), "little")


def digests(fingerprint: str, golden: Any, columns: Any) -> dict[str, str]:
    """What `Prompts.digests` gives, from the digests of each prompt in order."""
    return {"rows": fingerprint, "golden answers": digest_of(golden), "columns": digest_of(columns)}


def digest_of(row_digests: Any) -> str:
    """The fingerprint of a source, from the `row_digest` of each of its prompts in order."""
    return hashlib.blake2b(np.asarray(row_digests, "<u8").tobytes(), digest_size=8).hexdigest()

"""What every token of a few rows came to in an update: taken where the loss has it, without a pass of its own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gcpo_mcore.actor.forward_pass import LossFunction, Sums
from gcpo_mcore.batch import UpdateBatch

DIGITS = 4  # after the point
Values = dict[str, list[Any]]  # name -> a value of each response token


@dataclass(frozen=True)
class _Kept:
    """Of a micro-batch: the rows' numbers in the step, their tokens, whether they are golden [n], and values [n, T]."""

    numbers: list[int]
    ids: list[np.ndarray]
    is_golden: torch.Tensor
    values: dict[str, torch.Tensor]

    def by_row(self) -> Iterator[tuple[int, Values]]:
        values, is_golden = {name: value.cpu() for name, value in self.values.items()}, self.is_golden.tolist()
        for place, (number, ids) in enumerate(zip(self.numbers, self.ids, strict=True)):
            mine = {name: _rounded(value[place, : len(ids)]) for name, value in values.items()}
            if is_golden[place]:
                del mine["rollout_logp"]
            yield number, {"ids": ids.tolist(), **mine}


class TokenValues:
    """Of this rank: keeps the values of the first `limit` rows of a step (None: of all).

    values = TokenValues(limit=64)
    actor.update(rows, values.watched(algorithm.loss, first_row=0), ...)
    values.drain()   # {0: {"ids": [5, 7], "logp": [-0.1, -2.3], ...}, ...}, and starts anew
    """

    def __init__(self, limit: int | None):
        self.limit = limit
        self._kept: list[_Kept] = []

    def watched(self, loss: LossFunction, first_row: int) -> LossFunction:
        """`loss`, and what it is given is looked at. first_row: the step's number of the update's first row."""
        if self.limit is not None and first_row >= self.limit:
            return loss

        def watching(logp: torch.Tensor, entropy: torch.Tensor, rows: UpdateBatch) -> tuple[torch.Tensor, Sums]:
            self._keep(logp.detach(), entropy.detach(), rows, first_row)
            return loss(logp, entropy, rows)

        return watching

    def drain(self) -> dict[int, Values]:
        """The values since the last call, by the number of the row in the step.

        ids; logp and entropy in the update; old_logp before the step's updates, if those were asked for; rollout_logp
        of the engine, but for golden answers; advantage. Log-probs and entropy in nats.
        """
        kept, self._kept = self._kept, []
        return {row: values for each in kept for row, values in each.by_row()}

    def _keep(self, logp: torch.Tensor, entropy: torch.Tensor, rows: UpdateBatch, first_row: int) -> None:
        numbers = [first_row + number for number in rows.mine.tolist()]
        chosen = [place for place, row in enumerate(numbers) if self.limit is None or row < self.limit]
        if not chosen:
            return
        named = {"logp": logp, "entropy": entropy, "rollout_logp": rows.rollout_logp, "advantage": rows.advantage}
        if rows.has_old_logp:
            named["old_logp"] = rows.old_logp
        # Still on the device: numbers are made of them when the step is over, and no update waits for it.
        self._kept.append(
            _Kept(
                [numbers[place] for place in chosen],
                [rows.response_ids[place] for place in chosen],
                rows.is_golden[chosen],
                {name: value[chosen] for name, value in named.items()},
            )
        )


def _rounded(values: torch.Tensor) -> list[float | None]:
    """Plain numbers; None for what json cannot say."""
    finite = values.isfinite().tolist()
    return [round(value, DIGITS) if good else None for value, good in zip(values.tolist(), finite, strict=True)]


def pieces(tokenizer: Any) -> Callable[[Sequence[int]], list[str]]:
    """A function from token ids to the text of each; a token that is a part of a letter is U+FFFD.

    A tokenizer may leave out the space before the first token of a text, so each is decoded behind another one.
    """
    before = tokenizer("a", add_special_tokens=False).input_ids[-1:]
    start = len(tokenizer.decode(before)) if before else 0
    known: dict[int, str] = {}

    def text(token: int) -> str:
        if token not in known:
            known[token] = tokenizer.decode([*before, token])[start:]
        return known[token]

    return lambda ids: [text(token) for token in ids]

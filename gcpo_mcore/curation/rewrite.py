"""Where a policy begins when it writes a golden answer anew, having been shown the old one.

Own text is easier to imitate than another's: the policy's own answers are likelier under it (the idea of ReGFT,
arXiv 2603.01223, which shows part of a reference; the templates and the choice by log-prob are ours).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from gcpo_mcore.curation.local_teacher import Start
from gcpo_mcore.data.config import DataConfig
from gcpo_mcore.data.dataset import render
from gcpo_mcore.data.encoder import Encoder, Text
from gcpo_mcore.data.files import Row
from gcpo_mcore.data.messages import Message
from gcpo_mcore.data.shapes import Columns


@dataclass
class Shown:
    """How the golden answer of a row is shown.

    ask     the prompt, or its last message, with {prompt} and {golden} filled in
    begin   what the answer begins with, {golden} filled in; the policy goes on from there
    shares  of the golden answer's tokens, from the front, rounded up: {golden} is so much of it; each gets its tries
    """

    ask: str
    begin: str
    shares: list[float]
    data: DataConfig
    encoder: Encoder
    asked: DataConfig = field(init=False)

    def __post_init__(self):
        self.asked = self.data.model_copy(update={"prompt_suffix": ""})  # {prompt} has it already

    def starts(self, row: Row, columns: Columns) -> list[Start]:
        """A start for each share; none for a row without a golden answer."""
        golden = columns.golden_answer(row)
        if golden is None:
            return []
        ids = self.encoder.plain(row.where, "golden_answer", golden).ids
        parts = [self._part(golden, ids, share) for share in self.shares]
        return [self._start(row, columns, part, f"/{share:g}") for share, part in zip(self.shares, parts, strict=True)]

    def _part(self, golden: str, ids: list[int], share: float) -> str:
        """The first tokens as text; a character that the cut would halve goes with what is cut off."""
        if share == 1:
            return golden
        text = self.encoder.tokenizer.decode(ids[: math.ceil(share * len(ids))], skip_special_tokens=True)
        return text.rstrip("\ufffd")

    def _start(self, row: Row, columns: Columns, part: str, name: str) -> Start:
        def filled(text: str) -> str:
            pieces = self.ask.split("{prompt}")
            return (text + self.data.prompt_suffix).join(piece.replace("{golden}", part) for piece in pieces)

        told = replace(row, values=row.values | {columns.prompt: _last_changed(row.values[columns.prompt], filled)})
        read = render(told, columns.prompt, self.asked, self.encoder)
        begun = self.begin.replace("{golden}", part)
        ids = self.encoder.tokenizer.encode(begun, add_special_tokens=False) if begun else []
        return Start(Text(read.text, read.ids + ids), begun, name)


def _last_changed(prompt: str | list[Message], change: Callable[[str], str]) -> str | list[Message]:
    """The prompt with its text, or that of its last message, changed."""
    if isinstance(prompt, str):
        return change(prompt)
    return [*prompt[:-1], {**prompt[-1], "content": change(prompt[-1]["content"])}]

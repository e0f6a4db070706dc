"""A language model in this process, by a rollout engine of the framework, asked for worked solutions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gcpo_mcore.data.config import DataConfig
from gcpo_mcore.data.dataset import render
from gcpo_mcore.data.encoder import Encoder, Text
from gcpo_mcore.data.files import Row
from gcpo_mcore.data.shapes import Columns
from gcpo_mcore.rewarding.thinking import shown_response
from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Engine, Request
from gcpo_mcore.rollout.sampling import request_seed
from gcpo_mcore.samples import Prompt


@dataclass(frozen=True)
class Start:
    """What the model reads, at its end the beginning of the answer if there is one; `name` differs within a row."""

    read: Text
    begun: str = ""
    name: str = ""


@dataclass
class LocalTeacher:
    """A teacher in this process.

    engine         has the weights; `encoder` is the model's
    data           says how a row becomes its prompt, as in training
    max_positions  of the model: a prompt that leaves no room for `sampling.max_response_tokens` is put into `refusals`
    tries          solutions of each start; what a row gets depends on `seed` and its number only
    starts         those of a row (None: its prompt as in training)
    """

    engine: Engine
    encoder: Encoder
    data: DataConfig
    sampling: Sampling
    max_positions: int
    tries: int
    seed: int
    refusals: list[str] = field(default_factory=list)
    starts: Callable[[Row, Columns], list[Start]] | None = None

    def solve(self, rows: Sequence[Row], columns: Columns) -> list[list[str]]:
        """The whole solutions of each row: those that are not empty and were not cut off, thinking with its <think>."""
        asked = [
            (i, start, prompt)
            for i, row in enumerate(rows)
            for start in self._starts(row, columns)
            if (prompt := self._prompt(row, columns, start)) is not None
        ]
        work = [(i, start, prompt, t) for i, start, prompt in asked for t in range(self.tries)]
        requests = [Request(prompt, t, request_seed("teacher", self.seed, prompt.id, t)) for _, _, prompt, t in work]
        found: list[list[str]] = [[] for _ in rows]
        for (i, start, prompt, _), sample in zip(work, self.engine.generate(requests, self.sampling), strict=True):
            if not sample.truncated and (text := (start.begun + sample.response_text).strip()):
                found[i].append(shown_response(prompt.text, text, len(text)))
        return found

    def _starts(self, row: Row, columns: Columns) -> list[Start]:
        if self.starts is not None:
            return self.starts(row, columns)
        return [Start(render(row, columns.prompt, self.data, self.encoder))]

    def _prompt(self, row: Row, columns: Columns, start: Start) -> Prompt | None:
        longest = len(start.read.ids) + self.sampling.max_response_tokens
        if longest > self.max_positions:
            self.refusals.append(
                f"{row.where}: prompt and --max-tokens are {longest} tokens, the model has {self.max_positions}"
            )
            return None
        return Prompt(f"{row.number}{start.name}", "", start.read.text, start.read.ids, columns.answers(row)[0])

"""A step's rollouts as text: every rank makes the lines of its own samples, rank 0 writes them beside the next step."""

from collections.abc import Mapping
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING

from gcpo_mcore.base.background import Background
from gcpo_mcore.base.collectives import to_rank_0
from gcpo_mcore.batch import WeighedBatch
from gcpo_mcore.monitor.records import record, write_records, write_token_values
from gcpo_mcore.run.collector import Collected
from gcpo_mcore.run.token_values import Values, pieces

if TYPE_CHECKING:  # slow to import
    from transformers import PreTrainedTokenizerBase


class Recorder:
    """Of one rank. `limit`: at most so many samples of a step, the first ones; None for all."""

    def __init__(self, folder: Path, rank: int, limit: int | None, tokenizer: "PreTrainedTokenizerBase"):
        self.folder, self.rank, self.limit = folder, rank, limit
        self._writing: Background | None = None
        self._pieces = pieces(tokenizer)

    def record(
        self, step: int, collected: Collected, batch: WeighedBatch | None, token_values: Mapping[int, Values]
    ) -> None:
        """Begins to write the step's samples; those of the step before are written when this returns.

        token_values: of this rank's rows, by their number in the step (gcpo_mcore/run/token_values.py).
        A collective over all ranks. OSError on rank 0 if a file could not be written.
        """
        # The first token's: an advantage that differs by token is a sum over the tokens from there on.
        advantages = batch.everywhere(batch.advantage[:, :1].sum(1)).tolist() if batch else repeat(None)
        rows = ((group.prompt, facts) for group in collected.groups for facts in group.samples)
        first = enumerate(islice(zip(rows, advantages, strict=False), self.limit))
        lines = {
            row: record(step, prompt, facts, collected.store[facts.home[1]], advantage)
            for row, ((prompt, facts), advantage) in first
            if facts.home[0] == self.rank
        }
        shares = to_rank_0((lines, token_values))
        if shares is None:
            return
        self.close()
        in_order = [line for _, line in sorted(item for share, _ in shares for item in share.items())]
        values = {row: found for _, share in shares for row, found in sorted(share.items())}
        self._writing = Background(lambda: self._write(step, in_order, values), "rollout records")

    def _write(self, step: int, lines: list[str], values: Mapping[int, Values]) -> None:
        write_records(self.folder, step, lines)
        if values:
            write_token_values(self.folder, step, values, self._pieces)

    def close(self) -> None:
        """Returns when everything is written. OSError if it could not be."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.wait()
            if writing.error:
                raise writing.error

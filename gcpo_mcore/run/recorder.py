"""A step's rollouts as text: every rank makes the lines of its own samples, rank 0 writes them beside the next step."""

from itertools import islice
from pathlib import Path

from gcpo_mcore.base.background import Background
from gcpo_mcore.base.collectives import to_rank_0
from gcpo_mcore.batch import WeighedBatch
from gcpo_mcore.monitor.records import record, write_records
from gcpo_mcore.run.collector import Collected


class Recorder:
    """Of one rank. `limit`: at most so many samples of a step, the first ones; None for all."""

    def __init__(self, folder: Path, rank: int, limit: int | None):
        self.folder, self.rank, self.limit = folder, rank, limit
        self._writing: Background | None = None

    def record(self, step: int, collected: Collected, batch: WeighedBatch | None) -> None:
        """Begins to write the step's samples; those of the step before are written when this returns.

        A collective over all ranks. OSError on rank 0 if a file could not be written.
        """
        # The first token's: an advantage that differs by token is a sum over the tokens from there on.
        advantages = batch.everywhere(batch.advantage[:, :1].sum(1)).tolist() if batch else []
        rows = ((group.prompt, facts) for group in collected.groups for facts in group.samples)
        first = enumerate(islice(zip(rows, advantages, strict=True), self.limit))
        lines = {
            row: record(step, prompt, facts, collected.store[facts.home[1]], advantage)
            for row, ((prompt, facts), advantage) in first
            if facts.home[0] == self.rank
        }
        shares = to_rank_0(lines)
        if shares is not None:
            self.close()
            in_order = [line for _, line in sorted(item for share in shares for item in share.items())]
            self._writing = Background(lambda: write_records(self.folder, step, in_order), "rollout records")

    def close(self) -> None:
        """Returns when everything is written. OSError if it could not be."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.wait()
            if writing.error:
                raise writing.error

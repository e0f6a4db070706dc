"""Run by test_worth_keeping.py: python breaking_worker.py FIRST OVERRIDE ...

Trains with the surrogate `breaks`: from the loss number FIRST (from 1) of this process on, losses are not numbers.
"""

import sys
from typing import ClassVar

from gcpo_mcore.commands.train import train
from gcpo_mcore.objective.surrogate import Clipped
from gcpo_mcore.run.load import run_tool


class Breaks(Clipped, option="breaks"):
    first: ClassVar[int] = 0
    losses: ClassVar[int] = 0

    def token_loss(self, logp, rows, ratio):
        Breaks.losses += 1
        loss, is_clipped = super().token_loss(logp, rows, ratio)
        return loss * (float("nan") if Breaks.losses >= Breaks.first else 1.0), is_clipped


if __name__ == "__main__":
    Breaks.first = int(sys.argv.pop(1))
    run_tool(train)

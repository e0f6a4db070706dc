"""What the ranks agree on at the end of each step: whether the launch ends there, and whether a checkpoint is due."""

import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from gcpo_mcore.base.stop import Stop, name
from gcpo_mcore.run.config import TrainerConfig


class StepEnds:
    """Of one rank, from the start of its first step. clock: in seconds; rank 0's counts.

    stopped_by: '' or the name of the signal, to whichever rank, for which the launch ends.
    """

    def __init__(self, trainer: TrainerConfig, stop: Stop, clock: Callable[[], float] = time.monotonic):
        self.trainer, self.stop, self.clock = trainer, stop, clock
        self.end = min(trainer.steps, trainer.stop_at_step or trainer.steps)
        self.stopped_by = ""
        self._last = clock()

    def agree(self, step: int) -> tuple[bool, bool]:
        """Whether `step` is the launch's last, and whether a checkpoint is to be taken of it. A collective."""
        every, every_s = self.trainer.checkpoint_every_steps, self.trainer.checkpoint_every_s
        is_late = every_s is not None and dist.get_rank() == 0 and self.clock() - self._last >= every_s
        # On the CPU: a few bytes by gloo, and no rank's GPU waits.
        told = torch.tensor([self.stop.number, int(is_late)])
        dist.all_reduce(told, dist.ReduceOp.MAX)
        number, is_late = told.tolist()
        if number:
            self.stopped_by = name(number)
        is_last = step == self.end or bool(number)
        is_due = is_last or bool(is_late) or bool(every and step % every == 0)
        if is_due:
            self._last = self.clock()
        return is_last, is_due

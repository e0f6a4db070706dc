"""Run by test_sharing.py: python sharing_worker.py GPU OVERRIDE...: a run whose actor enters its bytes in GPU's book.

GPU/capacity says how much there is; whoever takes more ends the run. On a CPU the actor's device is the host, so what
is on it is read off its storages.
"""

import sys
from pathlib import Path

import torch

from gcpo_mcore.actor.offload import Offloader
from gcpo_mcore.base.stop import Stop
from gcpo_mcore.run import setup
from gcpo_mcore.run.load import load_config
from gcpo_mcore.run.plan import make_plan
from gcpo_mcore.run.start import started
from tests.rollout.fake_books import Gpu

GPU = Gpu(Path(sys.argv[1]))


def on_device(offloader: Offloader) -> int:
    """Bytes of weights, gradients and optimizer state."""
    held = offloader._state() | offloader._weights()
    gradients = {b.untyped_storage()._cdata: b.untyped_storage() for b in offloader.stage.gradient_buffers()}
    return sum(storage.nbytes() for storage in (held | gradients).values())


def told(move):
    def moved(self: Offloader, *args, **kwargs) -> None:
        move(self, *args, **kwargs)
        if over := GPU.take("actor", on_device(self)):
            raise torch.OutOfMemoryError(over)

    return moved


if __name__ == "__main__":
    for name in ("offload", "onload"):
        setattr(Offloader, name, told(getattr(Offloader, name)))
    with started(make_plan(load_config(sys.argv[2:]))) as plan, setup.trainer(plan) as trainer:
        trainer.run(Stop(60.0, lambda: None))

"""Tells a tracker, by its real package and offline, of a run that ends after step 3 and goes on from step 2."""

import logging
import sys
from pathlib import Path

from gcpo_mcore.monitor.tracking import Step, TrackedRun, Tracking


def main(name: str, folder: str) -> None:
    """name: of the tracker; folder: the run folder."""
    logging.basicConfig(level=logging.WARNING)
    run = TrackedRun("a run", "a project", Path(folder), {"seed": 1, "trainer": {"steps": 4}}, offline=True)
    for done_steps, steps in ((-1, (1, 2, 3)), (2, (3, 4))):
        tracking = Tracking([name], run, done_steps)
        for step in steps:
            metrics = {"reward/mean": step / 10, "val/easy/avg@1": 1.0, "actor/grad_norm": float("nan")}
            sample = {"prompt_id": "easy:1", "prompt": "1 + 1", "response": "<b>two</b>", "reward": 1.0}
            tracking.tell(Step(step, metrics, {"reward": [0.0, 1.0, 1.0]}, [sample]))
        tracking.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

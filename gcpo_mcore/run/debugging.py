"""What a run writes down for whoever looks into it: a step's batch, a step's profile. Neither changes the run.

What is done with a dump is in replay.py.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.base import platform
from gcpo_mcore.monitor.watchdog import Phases
from gcpo_mcore.run.collector import Collected
from gcpo_mcore.run.config import DebugConfig
from gcpo_mcore.run.dump import FOLDER, add_outcome, path_of, weights_sum, write_dump

log = logging.getLogger(__name__)


class Debugging:
    """What `debug.*` asks of a run on this rank. `folder` is that of the run."""

    def __init__(self, settings: DebugConfig, folder: Path):
        self.settings, self.folder = settings, folder

    def dump(self, step: int, collected: Collected) -> None:
        """Writes down what the step has sampled, if that is asked for: before it is trained on, which may fail.
        A collective over all ranks."""
        if step in self.settings.dump:
            write_dump(path_of(self.folder, step), step, collected)

    def note(self, step: int, metrics: Mapping[str, float], actor: Actor) -> None:
        """Adds what the step came to, to its dump. A collective over all ranks."""
        if step not in self.settings.dump:
            return
        weights = weights_sum(actor)
        if dist.get_rank() == 0:
            add_outcome(path_of(self.folder, step), metrics, weights)
            log.info("debug.dump: %s", path_of(self.folder, step))

    @contextmanager
    def profiled(self, step: int, phases: Phases) -> Iterator[None]:
        """The scope of a step, of which a trace is written if that is asked for: one for each rank, phases named."""
        if step not in self.settings.profile:
            yield
            return
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if platform.HAS_CUDA:
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        path = self.folder / FOLDER / f"profile_step_{step:06d}_rank_{dist.get_rank():05d}.json.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with torch.profiler.profile(activities=kinds) as profile, phases.marked(torch.profiler.record_function):
            yield
        profile.export_chrome_trace(str(path))
        if dist.get_rank() == 0:
            log.info("debug.profile: %s (open it at ui.perfetto.dev or chrome://tracing)", path)

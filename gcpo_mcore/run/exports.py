"""Hugging Face exports while a run goes on: a process of its own converts a checkpoint, without the run's GPUs.

The run holds no second copy of anything and waits for nothing, but at its end.
"""

import logging
import subprocess
import sys

from gcpo_mcore.base.background import child_environment
from gcpo_mcore.base.parent import tied
from gcpo_mcore.run.folder import RunFolder

log = logging.getLogger(__name__)

CONVERT = ["-m", "gcpo_mcore.commands.convert"]


class BackgroundExports:
    """Makes `hf_step_000020/` in the run folder for every `every_steps`th step (0: none); one rank has one of these."""

    def __init__(self, folder: RunFolder, every_steps: int, is_gated: bool):
        self.folder, self.every_steps, self.is_gated = folder, every_steps, is_gated
        self._output = folder.path / "logs" / "hf_export.log"
        self._running: dict[int, subprocess.Popen] = {}

    @property
    def reading(self) -> set[int]:
        """Steps whose checkpoints are being read, and must not be dropped."""
        self._collect()
        return set(self._running)

    def after_checkpoint(self, step: int) -> None:
        """Starts the export of `step` if it is due and not there."""
        out = self.folder.path / f"hf_step_{step:06d}"
        if not self.every_steps or step % self.every_steps or out.exists():
            return
        # No CUDA device: they are the run's. One thread: the cores are.
        environment = child_environment() | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        with open(self._output, "ab") as output:
            command = [sys.executable, *CONVERT, "to-hf", str(self.folder.path), str(out), "--step", str(step)]
            command += [] if self.is_gated else ["--no-gate"]
            self._running[step] = subprocess.Popen(tied(command), env=environment, stdout=output, stderr=output)

    def close(self) -> None:
        """Waits for those that are running."""
        for process in self._running.values():
            process.wait()
        self._collect()

    def _collect(self) -> None:
        for step, process in list(self._running.items()):
            if process.poll() is None:
                continue
            del self._running[step]
            if process.returncode:
                log.warning("the export of step %d failed (exit %d); see %s", step, process.returncode, self._output)

"""Hugging Face exports while a run goes on: a process of its own converts a checkpoint, without the run's GPUs.

The run holds no second copy of anything and waits for nothing, but at its end.
"""

import contextlib
import logging
import subprocess
import sys
import time
from dataclasses import dataclass

from gcpo_mcore.base.background import child_environment
from gcpo_mcore.base.parent import kill_group, tied
from gcpo_mcore.run.folder import RunFolder

log = logging.getLogger(__name__)

CONVERT = ["-m", "gcpo_mcore.commands.convert"]


@dataclass(frozen=True)
class _Export:
    process: subprocess.Popen
    due: float  # time.monotonic() by which it has ended


class BackgroundExports:
    """Makes `hf_step_000020/` in the run folder for every `every_steps`th step (0: none); one rank has one of these.

    One that takes longer than `deadline_s` is ended.
    """

    def __init__(self, folder: RunFolder, every_steps: int, is_gated: bool, deadline_s: float):
        self.folder, self.every_steps, self.is_gated, self.deadline_s = folder, every_steps, is_gated, deadline_s
        self._output = folder.path / "logs" / "hf_export.log"
        self._running: dict[int, _Export] = {}

    @property
    def reading(self) -> set[int]:
        """Steps whose checkpoints are being read, and must not be dropped."""
        self.poll()
        return set(self._running)

    def after_checkpoint(self, step: int) -> None:
        """Starts the export of `step`, which has a checkpoint, if it is due and not there."""
        out = self.folder.path / f"hf_step_{step:06d}"
        if not step or not self.every_steps or step % self.every_steps or out.exists():
            return
        # No CUDA device: they are the run's. One thread: the cores are.
        environment = child_environment() | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *CONVERT, "to-hf", str(self.folder.path), str(out), "--step", str(step)]
        command += [] if self.is_gated else ["--no-gate"]
        try:
            with open(self._output, "ab") as output:
                process = subprocess.Popen(
                    tied(command), env=environment, stdout=output, stderr=output,
                    process_group=0,  # the job's signals are its run's to handle
                )  # fmt: skip
        except OSError as error:
            log.warning("the export of step %d was not started (%s: %s)", step, self._output, error.strerror)
            return
        self._running[step] = _Export(process, time.monotonic() + self.deadline_s)

    def poll(self) -> None:
        """Ends what is late; a warning for that, and for what failed."""
        for step, export in list(self._running.items()):
            is_late = time.monotonic() > export.due
            if is_late:
                kill_group(export.process)
            elif export.process.poll() is None:
                continue
            del self._running[step]
            if is_late:
                log.warning(
                    "the export of step %d did not end within %g s (monitor.export_deadline_s) and was ended; see %s",
                    step, self.deadline_s, self._output,
                )  # fmt: skip
            elif code := export.process.returncode:
                log.warning("the export of step %d failed (exit %d); see %s", step, code, self._output)

    def close(self) -> None:
        """Waits for those that are running, none longer than it may take."""
        for export in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                export.process.wait(max(0.0, export.due - time.monotonic()))
        self.poll()

    def end(self) -> None:
        """Ends those that are running; a continuation makes the newest one anew."""
        for step, export in self._running.items():
            kill_group(export.process)
            log.info("the export of step %d was ended with the run", step)
        self._running = {}

"""The run's checkpoints: each whole or not at all, in the background where trainer.async_checkpoints says so."""

from pathlib import Path
from typing import Any

import torch.distributed as dist

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.checkpoint_writer import CheckpointWriter
from gcpo_mcore.base.collectives import from_rank_0
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.monitor.watchdog import Phases
from gcpo_mcore.run.exports import BackgroundExports
from gcpo_mcore.run.plan import Plan


class Saver:
    """Writes a run's checkpoints. Every method is a collective over all ranks.

    Every rank writes and sums its own files; when all are whole, rank 0 collects the sums and names the folder. Until
    then it is `tmp_step_*`, which nothing reads. One at a time is on its way. While it `keeps_all`, none is removed.
    """

    def __init__(self, plan: Plan, actor: Actor, phases: Phases):
        self.plan, self.actor, self.phases = plan, actor, phases
        self.settings, self.folder = plan.config.trainer, plan.folder
        self.is_writer = dist.get_rank() == 0
        self.exports = BackgroundExports(
            plan.folder,
            self.settings.hf_every_steps,
            self.settings.gate_exports,
            plan.config.monitor.export_deadline_s,
        )
        self.keeps_all = False
        self._step = 0  # of the checkpoint on its way
        self._files: CheckpointWriter | None = None

    def save(self, step: int, state: dict[str, Any], sampled: bytes) -> None:
        """Takes a checkpoint of the actor, `state` and what is `sampled` (of rank 0) as they are now. Returns when it
        has its name, or at once if checkpoints are asynchronous; an earlier one that is on its way is waited for.
        UserError if either fails.
        """
        self.wait()
        with self.phases.phase("checkpoint"):
            self._step = step
            try:
                if self.is_writer:
                    self.folder.begin_checkpoint(step, state, sampled)
                dist.barrier()
                temporary = self.folder.temporary(step)
                self._files = CheckpointWriter(self.actor, temporary, is_snapshot=self.settings.async_checkpoints)
            except (OSError, RuntimeError) as error:
                if self.is_writer:  # torch writes to full disks with a RuntimeError; elsewhere it is a lost connection
                    raise self._failure(self.folder.temporary(step), error) from error
                raise
            self._files.start()
        if not self.settings.async_checkpoints:
            self.wait()

    def resume_exports(self) -> None:
        """Starts the exports that a launch before has not come to an end with, of the checkpoints that it kept."""
        if self.is_writer:
            for step in self.folder.steps()[: self.settings.keep_checkpoints]:
                self.exports.after_checkpoint(step)

    def poll(self) -> None:
        """Ends the checkpoint on its way if all its files are written. UserError if it failed."""
        self.exports.poll()
        if self._files and self._files.is_done():
            with self.phases.phase("checkpoint"):
                self._finish(self._files)

    def wait(self) -> None:
        """Returns when no checkpoint is on its way. UserError if it failed."""
        if self._files:
            with self.phases.phase("checkpoint"):
                self._finish(self._files)

    def usable(self) -> str:
        """Words for the newest checkpoint that is good, when none is on its way any more."""
        self.wait()
        newest = self.folder.newest_good(reads_all=False) if self.is_writer else None
        words = f"the newest good checkpoint is {newest}" if newest else "there is no good checkpoint"
        return from_rank_0(words)

    def close(self, is_stopped: bool) -> None:
        """Waits for the checkpoint and the exports on their way; of a launch that a signal stops, ends the exports."""
        self.wait()
        if not self.is_writer:
            return
        if is_stopped:
            self.exports.end()
            return
        self.exports.close()
        self._drop_old()

    def _finish(self, files: CheckpointWriter) -> None:
        """Waits for every rank's files and gives the checkpoint its name."""
        self._files = None
        try:
            sums = files.finish()
        except UserError as error:
            raise UserError(f"phase checkpoint: {error}; earlier checkpoints are intact") from error
        if self.is_writer:
            try:
                self.folder.finish_checkpoint(self._step, self.plan.arch, sums)
            except (OSError, UserError) as error:
                raise self._failure(self.folder.temporary(self._step), error) from error
            self.exports.after_checkpoint(self._step)
            self._drop_old()
        dist.barrier()

    def _drop_old(self) -> None:
        if not self.keeps_all:
            in_use = self.exports.reading | {self._step}  # the one just written
            self.folder.drop_old(self.settings.keep_checkpoints, self.settings.keep_every_steps, in_use)

    def _failure(self, path: Path, error: Exception) -> UserError:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return UserError(f"phase checkpoint: rank 0 could not write {path} ({reason}); earlier checkpoints are intact")

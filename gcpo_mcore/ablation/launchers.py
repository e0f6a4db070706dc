"""Starters of a cell's process: on this machine, or handed to Slurm by submitit."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Queue
from typing import Protocol

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.parent import tied


class Running(Protocol):
    """A started cell: `poll` gives its exit code, or None while it runs."""

    def poll(self) -> int | None: ...


class Launcher(Protocol):
    """Starts a command for a cell, or finds the one that an earlier launch left running."""

    def start(self, name: str, command: Sequence[str], log: Path) -> Running: ...

    def stop(self) -> None:
        """Tells what it started on this machine to stop."""
        ...


class Local:
    """Processes of this machine. If the launcher dies, however it dies, they are ended with it (on Linux).

    gpus: of this machine, as CUDA_VISIBLE_DEVICES names them. A cell has `per_cell` of them to itself while it runs.
    """

    def __init__(self, gpus: Sequence[str] = (), per_cell: int = 1):
        self.free: Queue[Sequence[str]] = Queue()
        self.children: list[subprocess.Popen] = []
        for first in range(0, len(gpus) - per_cell + 1, per_cell):
            self.free.put(gpus[first : first + per_cell])
        self.places = self.free.qsize()
        if gpus and not self.places:
            raise UserError(f"a cell of {per_cell} processes needs as many GPUs; this machine has {len(gpus)}")

    def start(self, name: str, command: Sequence[str], log: Path) -> Running:
        """See `Launcher`. Waits for GPUs where there are some and all are in use."""
        gpus = self.free.get() if self.places else None
        own = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        # SIGTERM: torchrun takes its own workers down on it.
        with open(log, "ab") as file:
            child = subprocess.Popen(
                tied(command, signal.SIGTERM),
                stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=_environment() | own,
            )  # fmt: skip
        self.children.append(child)
        return child if gpus is None else _OnGpus(child, gpus, self.free)

    def stop(self) -> None:
        """See `Launcher`."""
        for child in self.children:
            child.terminate()


class _OnGpus:
    """A process that gives its GPUs back when it is seen to have ended."""

    def __init__(self, child: subprocess.Popen, gpus: Sequence[str], free: "Queue[Sequence[str]]"):
        self.child, self.gpus, self.free = child, gpus, free
        self._is_over = False

    def poll(self) -> int | None:
        code = self.child.poll()
        if code is not None and not self._is_over:
            self._is_over = True
            self.free.put(self.gpus)
        return code


class Submitit:
    """Jobs of submitit's `cluster` ('slurm', or 'local' for its own processes), with `settings` as submitit names them.

    Slurm's jobs outlive the launcher: each one's number stands in `folder`/NAME.job, and the next launch waits for it.
    """

    def __init__(self, folder: Path, cluster: str, settings: Mapping[str, str | int]):
        try:
            import submitit
        except ImportError:
            raise UserError(f"launcher={cluster} needs the package submitit: pip install 'gcpo-mcore[slurm]'") from None
        self.folder, self.knows_old_jobs = folder, cluster == "slurm"
        try:
            self.executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=cluster)
            self.executor.update_parameters(**settings)
        except (ValueError, RuntimeError, NameError) as error:
            raise UserError(f"launcher={cluster}: {str(error).splitlines()[0]}") from None

    def start(self, name: str, command: Sequence[str], log: Path) -> Running:
        note = self.folder / f"{name}.job"
        if note.is_file():
            job = self.executor.job_class(folder=self.folder / "jobs", job_id=note.read_text())
            if self.knows_old_jobs and not job.done(force_check=True):
                return _Job(job)
        job = self.executor.submit(_run, list(command), str(log))
        note.write_text(job.job_id)
        return _Job(job)

    def stop(self) -> None:
        """Nothing: a cluster's jobs go on by themselves."""


class _Job:
    def __init__(self, job):
        self.job = job

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        return 1 if self.job.exception() is not None else self.job.result()


def _run(command: list[str], log: str) -> int:
    with open(log, "ab") as file:
        return subprocess.run(command, stdout=file, stderr=file, env=_environment(), check=False).returncode


def _environment() -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1", **os.environ, "TOKENIZERS_PARALLELISM": "false"}

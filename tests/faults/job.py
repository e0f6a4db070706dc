"""A training job of the fault matrix: started for real, met at a moment, broken, and gone on with."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.jobs import end, wait_for
from tests.launching import ENVIRONMENT, ROOT
from tests.run.test_resume import TRAIN, options
from tests.still import Standstill

TORCHRUN = ["-m", "gcpo_mcore.base.torchrun", "--standalone", "--nproc-per-node"]
PHASE = "gcpo_mcore.phase"  # the audit event of a phase's begin (gcpo_mcore/monitor/watchdog.py)
STEPS, TIMEOUT_S = 6, 300


class Job:
    """A run of STEPS steps in `folder`, with a checkpoint every second step, on `processes` ranks."""

    def __init__(self, carry: Path, folder: Path, processes: int, more: tuple[str, ...] = ()):
        folder.mkdir(parents=True)
        self.carry, self.folder, self.processes, self.more = carry, folder, processes, more
        self.log = folder / "log"
        self.launched: list[subprocess.Popen] = []
        self.still: Standstill | None = None

    @property
    def run_folder(self) -> Path:
        """What the run writes into."""
        return self.folder / "r"

    def start(self, *more: str, environment: dict[str, str] = ENVIRONMENT, log: Path | None = None) -> subprocess.Popen:
        """Starts it, or goes on with it; what it prints goes to the end of the log."""
        launcher = [*TORCHRUN, str(self.processes)] if self.processes > 1 else []
        command = [sys.executable, *launcher, TRAIN, *options(self.carry, self.folder, STEPS, *self.more, *more)]
        with open(log or self.log, "ab") as file:
            self.launched.append(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True)
            )
        return self.launched[-1]

    def stand(self, at: str, word: str, count: int = 1) -> subprocess.Popen:
        """Starts it and returns when a process of it stands still at the moment (tests/still.py) for the `count`-th
        time; `go_on` lets it go on."""
        self.still = Standstill(self.folder, at, word, count)
        job = self.start(environment=self.still.environment(ENVIRONMENT))
        wait_for(self.still.is_met, [job], self.log, TIMEOUT_S)
        return job

    def go_on(self) -> None:
        """Lets who stands still go on."""
        if self.still:
            self.still.end()

    def rank(self, number: int) -> psutil.Process:
        """The process of a rank of the job that was launched last."""
        first = psutil.Process(self.launched[-1].pid)
        if self.processes == 1:
            return first
        for process in first.children(recursive=True):
            if TRAIN in process.cmdline() and process.environ().get("RANK") == str(number):
                return process
        raise AssertionError(f"no rank {number}: {self.log.read_text()[-2000:]}")

    def worker(self) -> psutil.Process:
        """A grading process of rank 0."""
        return next(p for p in self.rank(0).children(recursive=True) if "gcpo_mcore.rewarding.worker" in p.cmdline())

    def ended(self, job: subprocess.Popen) -> int:
        """The job's exit code. AssertionError if it, or anything it started, does not end in time."""
        with self.whole_tree(job) as processes:
            code = job.wait(TIMEOUT_S)
        left = psutil.wait_procs(processes, timeout=60)[1]
        assert not left, f"still alive: {left}"
        return code

    @contextlib.contextmanager
    def whole_tree(self, job: subprocess.Popen) -> Iterator[list[psutil.Process]]:
        """All that the job has started until now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            yield psutil.Process(job.pid).children(recursive=True)
            return
        yield []

    def close(self) -> None:
        """Ends what is left of it."""
        for job in self.launched:
            end(job)

    # --- what is there ---------------------------------------------------------------------------------------------

    def said(self) -> str:
        """Everything printed so far."""
        return self.log.read_text(errors="replace")

    def steps_done(self) -> int:
        """The last step in metrics.jsonl."""
        path = self.run_folder / "metrics.jsonl"
        done = 0
        for line in path.read_bytes().splitlines() if path.is_file() else []:
            with contextlib.suppress(ValueError):
                done = json.loads(line)["step"]
        return done

    def newest_checkpoint(self) -> int:
        """Its step; 0 without one."""
        names = [p.name for p in (self.run_folder / "checkpoints").glob("step_??????")]
        return max((int(name[5:]) for name in names), default=0)

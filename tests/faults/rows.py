"""The faults: what is done to a job at which moment, and how it has to end."""

import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.job import PHASE, Job

RANK_PHASES = ("sync", "sample", "grade", "deal", "score", "update", "checkpoint")
PLAIN_END = 0
USER_ERROR, WATCHDOG, STOPPED = 2, 3, 75  # exit codes (docs/launch.md)
KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Row:
    """A fault.

    fault, phase  words for the table
    do            brings it about in a job that is not started; returns the exit code
    codes         those that the job may end with; None: any but 0
    says          a pattern that the log has to have; "" for nothing to say
    is_gone_on    the same command then has to finish, equal to the bit to a run without the fault
    """

    fault: str
    phase: str
    do: Callable[[Job], int]
    codes: tuple[int, ...] | None
    says: str
    processes: int = 1
    more: tuple[str, ...] = ()
    is_gone_on: bool = True


def rows() -> list[Row]:
    """All of them, in the order of the table."""
    return [
        *_kills(), *_parents(), *_signals(), *_standing(), *_workers(), *_damage(), *_places(), *_writers(), *_full(),
    ]  # fmt: skip


# --- a process that is gone ------------------------------------------------------------------------------------------


def _in_phase(name: str, who: int | str, number: int, count: int = 3) -> Callable[[Job], int]:
    """A signal to a rank, or to the launcher, while a rank stands at the begin of the phase for the `count`-th time."""

    def do(job: Job) -> int:
        stands = who if isinstance(who, int) else 0
        launched = job.stand(PHASE, f"('{name}', {stands})", 1 if name == "checkpoint" else count)
        victim = job.rank(who) if isinstance(who, int) else launched
        victim.send_signal(number)
        if number != signal.SIGSTOP:
            job.go_on()
        return job.ended(launched)

    return do


def _at_file(at: str, word: str, count: int) -> Callable[[Job], int]:
    def do(job: Job) -> int:
        launched = job.stand(at, word, count)
        launched.kill()
        job.go_on()
        return job.ended(launched)

    return do


def _kills() -> Iterator[Row]:
    for name in RANK_PHASES:
        yield Row("kill -9 of the only process", name, _in_phase(name, 0, signal.SIGKILL), (KILLED,), "")
    for words, at, word, count in (
        ("as metrics.jsonl is opened", "open", "metrics.jsonl", 4),
        ("as the step's rollouts are named", "os.rename", "rollouts/.step_000003", 1),
        ("as a checkpoint gets its name", "os.rename", "tmp_step_000004", 1),
        ("as a checkpoint's manifest is written", "open", "manifest", 3),
    ):
        yield Row("kill -9 of the only process", words, _at_file(at, word, count), (KILLED,), "")
    for name in RANK_PHASES:
        do = _in_phase(name, 1, signal.SIGKILL)
        yield Row("kill -9 of one of two ranks", name, do, None, r"rank 1|SIGKILL", processes=2)
    for name in ("sample", "update", "checkpoint"):
        do = _in_phase(name, 0, signal.SIGKILL)
        yield Row("kill -9 of rank 0 of two", name, do, None, r"rank 0|SIGKILL", processes=2)


def _parents() -> Iterator[Row]:
    for name in ("sample", "update", "checkpoint"):
        do = _in_phase(name, "torchrun", signal.SIGKILL)
        yield Row("kill -9 of torchrun: its ranks end too", name, do, (KILLED,), "", processes=2)


def _signals() -> Iterator[Row]:
    stopped = r"SIG(TERM|INT): stopped at step \d of 6, with a checkpoint"
    for name in ("sample", "update", "checkpoint"):
        do = _in_phase(name, "torchrun", signal.SIGTERM)
        yield Row("SIGTERM to torchrun", name, do, (STOPPED,), stopped, processes=2)
    for name in ("grade", "update"):
        yield Row("SIGTERM", name, _in_phase(name, 0, signal.SIGTERM), (STOPPED,), stopped)
    yield Row("SIGINT", "update", _in_phase("update", 0, signal.SIGINT), (STOPPED,), stopped)
    do = _in_phase("score", 1, signal.SIGTERM)
    yield Row("SIGTERM to one of two ranks", "score", do, (STOPPED,), stopped, processes=2)


def _standing() -> Iterator[Row]:
    for name in ("sample", "update", "checkpoint"):
        do, more = _in_phase(name, 1, signal.SIGSTOP), ("monitor.phase_deadline_s=12",)
        yield Row("SIGSTOP of one of two ranks", name, do, None, r"rank 1", 2, more)


def _workers() -> Iterator[Row]:
    def killed(job: Job) -> int:
        launched = job.stand(PHASE, "('grade', 0)", 3)
        job.worker().kill()
        job.go_on()
        return job.ended(launched)

    yield Row("kill -9 of a grading worker", "grade", killed, (PLAIN_END,), "")


# --- what lies on the disk -------------------------------------------------------------------------------------------


def _after_four(change: Callable[[Job], None]) -> Callable[[Job], int]:
    """A job that ended at step 4, with checkpoints of 2 and 4, and is changed then; it is gone on with afterwards."""

    def do(job: Job) -> int:
        code = job.ended(job.start("trainer.stop_at_step=4"))
        assert code == 0, job.said()[-2000:]
        change(job)
        return job.ended(job.start())

    return do


def _newest(job: Job) -> Path:
    return job.run_folder / "checkpoints/step_000004"


def _flip(pattern: str) -> Callable[[Job], None]:
    def change(job: Job) -> None:
        path = max(_newest(job).glob(pattern), key=lambda p: p.stat().st_size)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x10
        path.write_bytes(content)

    return change


def _damage() -> Iterator[Row]:
    left_out = r"step_000004"
    for words, pattern in (
        ("weights", "shards/*.distcp"), ("the index of the weights", "shards/.metadata"), ("state.json", "state.json"),
        ("the random states", "rank_*.json"), ("the manifest", "manifest.json"), ("the manifest's sum", "manifest.sum"),
    ):  # fmt: skip
        do = _after_four(_flip(pattern))
        yield Row(f"a bit of {words} is another one", "restore", do, (PLAIN_END,), left_out)

    def cut(job: Job) -> None:
        path = max(_newest(job).glob("shards/*.distcp"), key=lambda p: p.stat().st_size)
        os.truncate(path, path.stat().st_size // 2)

    yield Row("half of a file of weights is there", "restore", _after_four(cut), (PLAIN_END,), left_out)

    def gone(job: Job) -> None:
        next(_newest(job).glob("rank_*.json")).unlink()

    yield Row("a file of the checkpoint is gone", "restore", _after_four(gone), (PLAIN_END,), left_out)

    def empty(job: Job) -> None:
        (_newest(job) / "manifest.json").write_text("{}")

    yield Row("the manifest is {}", "restore", _after_four(empty), (PLAIN_END,), left_out)


def _places() -> Iterator[Row]:
    def stray(job: Job) -> None:
        folder = job.run_folder / "checkpoints"
        (folder / "step_abc").mkdir()
        (folder / "step_000006.bak").mkdir()
        (folder / "step_000099").symlink_to(folder / "nowhere")

    yield Row("strange names beside the checkpoints", "restore", _after_four(stray), (PLAIN_END,), "")

    def torn(job: Job) -> None:
        with open(job.run_folder / "metrics.jsonl", "ab") as file:
            file.write(b'{"step": 5, "rew')

    yield Row("metrics.jsonl ends within a line", "start", _after_four(torn), (PLAIN_END,), "")

    def not_text(job: Job) -> None:
        (job.run_folder / "config.yaml").write_bytes(b"\xff\xfe\x00model")

    do = _after_four(not_text)
    yield Row("config.yaml is no text", "start", do, (USER_ERROR,), r"error: .*config\.yaml", is_gone_on=False)

    def in_place(job: Job) -> int:
        job.run_folder.mkdir()
        (job.run_folder / "checkpoints").write_text("")
        return job.ended(job.start())

    yield Row(
        "a file in place of the checkpoints' folder", "checkpoint", in_place, (USER_ERROR,), r"error: .*checkpoints",
        is_gone_on=False,
    )  # fmt: skip

    def other_rate(job: Job) -> int:
        assert job.ended(job.start("trainer.stop_at_step=2")) == 0
        return job.ended(job.start("optimizer.lr=0.5"))

    yield Row("another configuration than before", "start", other_rate, (USER_ERROR,), r"optimizer\.lr")


def _writers() -> Iterator[Row]:
    def second(job: Job) -> int:
        first = job.stand(PHASE, "('sample', 0)", 3)
        code = job.ended(job.start(log=job.log))
        assert code == USER_ERROR, job.said()[-2000:]
        job.go_on()
        return job.ended(first)

    yield Row("a second run in the same folder", "sample", second, (PLAIN_END,), r"error: .*(writes|lock|another)")


def _full() -> Iterator[Row]:
    """No room: the system refuses to let a file of the process grow."""

    def at(word: str, room: Callable[[Job], int], *, event: str = PHASE, count: int = 1) -> Callable[[Job], int]:
        """`room`: the bytes that a file may have. What the job prints goes to a file too."""

        def do(job: Job) -> int:
            launched = job.stand(event, word, count)
            limit = (room(job), resource.getrlimit(resource.RLIMIT_FSIZE)[1])
            job.rank(0).rlimit(resource.RLIMIT_FSIZE, limit)
            job.go_on()
            return job.ended(launched)

        return do

    def ten_more_of_metrics(job: Job) -> int:
        metrics = (job.folder / "r/metrics.jsonl").stat().st_size
        assert metrics > 1.5 * len(job.said().encode()), "no room for the job's own words"
        return metrics + 10

    full = at("('checkpoint', 0)", lambda job: 200_000)
    yield Row("no room on the disk", "checkpoint", full, (USER_ERROR,), r"error: .*(File too large|could not write)")
    yield Row(
        "no room, checkpoints in the background", "checkpoint", full, (USER_ERROR,),
        r"error: .*(File too large|could not write)", more=("trainer.async_checkpoints=true",),
    )  # fmt: skip
    do = at("metrics.jsonl", ten_more_of_metrics, event="open", count=4)
    yield Row("no room for a step's metrics", "records", do, (USER_ERROR,), r"error: .*(File too large|metrics)")


def environment() -> list[str]:
    """What the table says of where it was made."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return [f"commit {commit}", f"{os.cpu_count()} cores"]

"""A place that a run cannot write to or read from is one line with the true reason, and exit code 2."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gcpo_mcore.monitor.metrics import read_metrics
from tests.jobs import end, wait_for
from tests.launching import ENVIRONMENT, ROOT, launch, run
from tests.run.test_resume import TRAIN, assert_same, options, outcome
from tests.still import Standstill

BAD_MEMORY = "/proc/self/mem"  # Linux: the first page is nobody's, and what writes there gets EIO


def folder_at(path: Path) -> None:
    path.mkdir(parents=True)


def file_at(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


def bad_file_at(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(BAD_MEMORY)


def bytes_at(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return write


@pytest.mark.parametrize(
    "name, obstacle, line",
    [
        ("config.yaml", folder_at, r".config.yaml.new -> {run}/config.yaml: Is a directory"),
        ("metrics.jsonl", folder_at, "metrics.jsonl: Is a directory"),
        ("metrics.jsonl", bad_file_at, "metrics.jsonl: Input/output error"),
        ("model", file_at, "tmp_model -> {run}/model: Not a directory"),
        ("rollouts/.step_000001.jsonl.new", bad_file_at, "rollouts/step_000001.jsonl: Input/output error"),
        ("logs/rank_00000.log", folder_at, "logs/rank_00000.log: Is a directory"),
        ("checkpoints/tmp_step_000002", file_at, "checkpoints/tmp_step_000002"),
        ("metrics.jsonl", bytes_at(b'{"step": 1}\n\xff\xfe\n'), "metrics.jsonl, line 2: not a step's metrics"),
        ("metrics.jsonl", bytes_at(b'{"step": 1}\n[1]\n'), "metrics.jsonl, line 2: not a step's metrics"),
    ],
)
def test_an_obstacle_is_one_line(name, obstacle, line, carry, tmp_path):
    obstacle(tmp_path / "r" / name)
    done = launch(TRAIN, *options(carry, tmp_path, 2))
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert last.startswith("error: ") and line.format(run=tmp_path / "r") in last, last


@pytest.mark.parametrize("content", [b"", b"run: {name: r", b"\xff\xfe: 1\n", b"[1, 2]\n"])
def test_a_torn_configuration_is_one_line(content, carry, stopped, tmp_path):
    """In a copy of a run's folder with a checkpoint."""
    subprocess.run(["cp", "-r", stopped / "r", tmp_path / "r"], check=True)
    (tmp_path / "r/config.yaml").write_bytes(content)
    done = launch(TRAIN, *options(carry, tmp_path, 4))
    assert done.returncode == 2, done.stderr
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"error: {tmp_path}/r/config.yaml: ")


@pytest.fixture(scope="module")
def stopped(carry, tmp_path_factory) -> Path:
    """A run of four steps that stopped at its second."""
    folder = tmp_path_factory.mktemp("stopped")
    run(TRAIN, *options(carry, folder, 4, "trainer.stop_at_step=2"))
    return folder


def test_torn_metrics_are_repaired(carry, stopped, tmp_path):
    """What a machine's end leaves: a half line, and bytes of nothing behind it."""
    subprocess.run(["cp", "-r", stopped / "r", tmp_path / "r"], check=True)
    with open(tmp_path / "r/metrics.jsonl", "ab") as file:
        file.write(b'{"step": 3, "rew' + bytes(4096))
    run(TRAIN, *options(carry, tmp_path, 4, "trainer.stop_at_step=3"))
    assert [line["step"] for line in read_metrics(tmp_path / "r")] == [1, 2, 3]


@contextlib.contextmanager
def small_disk(place: Path, access: str = "rw") -> Iterator[Path]:
    """A file system of 32 MiB; needs the right to mount one."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size=32m,{access}", "tmpfs", place]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def test_a_read_only_file_system(carry, tmp_path):
    """Of which the run learns when it writes its first step's rollouts."""
    (tmp_path / "r").mkdir()
    with small_disk(tmp_path / "r/rollouts", "ro"):
        done = launch(TRAIN, *options(carry, tmp_path, 2))
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].endswith("rollouts/.step_000001.jsonl.new: Read-only file system")


def test_a_disk_that_takes_no_more(carry, tmp_path):
    """At one moment after the other of a run, which always goes on; its end is that of a run that met nothing."""
    moments = ["rollouts/.step_000001", "tmp_step_000002/shards/__0_0", "unchecked_hf/"]
    with small_disk(tmp_path / "disk") as disk:
        for word in moments:
            still, log = Standstill(tmp_path, "open", word), tmp_path / "log"
            with open(log, "w") as file:
                job = subprocess.Popen(
                    [sys.executable, TRAIN, *options(carry, disk, 4)],
                    cwd=ROOT, env=still.environment(ENVIRONMENT), stdout=file, stderr=file,
                )  # fmt: skip
            try:
                wait_for(still.is_met, [job], log)
                still.again()
                fill(disk)
                still.end()
                assert job.wait() == 2, log.read_text()
            finally:
                end(job)
            said = log.read_text()
            last = said.splitlines()[-1]
            assert last.startswith("error: ") and "No space left on device" in last and "Traceback" not in said, said
            (disk / "filler").unlink(missing_ok=True)
        run(TRAIN, *options(carry, disk, 4))
        run(TRAIN, *options(carry, tmp_path / "whole", 4))
        assert_same(outcome(disk), outcome(tmp_path / "whole"))


def test_a_full_log_hides_nothing(carry, tmp_path):
    """stderr itself, and the run's log, lead to a device that is always full: the exit code is that of the reason."""
    (tmp_path / "r/logs").mkdir(parents=True)
    (tmp_path / "r/logs/rank_00000.log").symlink_to("/dev/full")
    done = launch(TRAIN, *options(carry, tmp_path, 2, "trainer.stop_at_step=1"))
    assert done.returncode == 0, done.stderr
    assert f"{os.path.join(tmp_path, 'r/logs/rank_00000.log')} takes no more" in done.stderr
    assert done.stderr.count("takes no more") == 1 and "Logging error" not in done.stderr
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, TRAIN, *options(carry, tmp_path, 2, "run.resume=never")],
            cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=full,
        )  # fmt: skip
    assert done.returncode == 2

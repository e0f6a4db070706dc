"""Trackers: by their real packages, offline, over a stop; and that none of them ends or delays a run."""

import importlib.util
import json
import logging
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gcpo_mcore.base.registry import trackers
from gcpo_mcore.monitor import tracking
from gcpo_mcore.monitor.tracking import Step, TrackedRun, Tracker, Tracking
from tests.launching import ENVIRONMENT, ROOT


def run_at(folder: Path) -> TrackedRun:
    return TrackedRun("a run", "a project", folder, {"seed": 1}, offline=True)


def step(number: int) -> Step:
    return Step(number, {"reward/mean": number / 10}, {"reward": [0.0, 1.0]}, [])


def told_by_package(name: str, folder: Path) -> Path:
    """The run folder after tracking_worker, in a process of its own: these packages start threads and servers."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed (pip install '.[{name}]')")
    environment = ENVIRONMENT | {"TRACKIO_DIR": str(folder / "trackers/trackio"), "HOME": str(folder)}
    command = [sys.executable, str(ROOT / "tests/monitor/tracking_worker.py"), name, str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "left out" not in done.stderr, done.stderr[-4000:]
    return folder


def test_every_tracker_has_an_extra_of_its_own():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(trackers.names()) - set(extras) == {"tensorboard"}


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(told_by_package("tensorboard", tmp_path) / "tb"), {"histograms": 0}).Reload()
    assert [(e.step, round(e.value, 4)) for e in events.Scalars("reward/mean")] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.3),
        (4, 0.4),
    ]
    assert (
        len(events.Histograms("histogram/reward")) == 4
        and events.Histograms("histogram/reward")[0].histogram_value.num == 3
    )
    text = events.Tensors("samples/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "    response: <b>two</b>" in text


def test_wandb(tmp_path):
    folder = told_by_package("wandb", tmp_path) / "trackers"
    id_ = json.loads((folder / "wandb.json").read_text())["id"]
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert [file.name for file in files] == [f"run-{id_}.wandb"] * 2  # one run, in two launches
    assert all(b"reward/mean" in file.read_bytes() and b"histogram/reward" in file.read_bytes() for file in files)
    tables = [json.loads(file.read_text()) for file in folder.glob("wandb/offline-run-*/files/media/table/*.json")]
    assert tables and tables[0]["data"][0][2] == "<b>two</b>"


def test_mlflow(tmp_path):
    folder = told_by_package("mlflow", tmp_path) / "trackers"
    with sqlite3.connect(folder / "mlflow.db") as database:
        assert database.execute("select name, status from runs").fetchall() == [("a run", "FINISHED")]
        rows = database.execute("select step, value from metrics where key = 'reward/mean' order by step").fetchall()
        assert [(number, round(value, 4)) for number, value in rows] == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
        assert database.execute("select count(*) from metrics where key = 'val/easy/avg_at_1'").fetchall() == [(4,)]
    assert len(list(folder.rglob("samples/step_00000?.txt"))) == 4


def test_trackio(tmp_path):
    folder = told_by_package("trackio", tmp_path) / "trackers/trackio"
    (path,) = folder.glob("*.db")
    with sqlite3.connect(path) as database:
        rows = database.execute("select distinct run_name, step, metrics from metrics order by step").fetchall()
    assert len({name for name, _, _ in rows}) == 1 and [number for _, number, _ in rows] == [1, 2, 3, 4]
    assert json.loads(rows[3][2])["reward/mean"] == pytest.approx(0.4)


def test_swanlab(tmp_path):
    folder = told_by_package("swanlab", tmp_path) / "trackers"
    id_ = json.loads((folder / "swanlab.json").read_text())["id"]
    files = sorted(folder.glob(f"swanlab/run-*/run-{id_}.swanlab"))
    assert len(files) == 2 and all(b"reward/mean" in file.read_bytes() for file in files)
    texts = [file.read_text() for file in folder.glob("swanlab/run-*/media/**/*.txt")]
    assert texts and "response: <b>two</b>" in texts[0]


class Own(Tracker):
    """Notes down what it is told; `breaks` says at which step it raises, 0 for the start."""

    breaks = -1

    def __init__(self, run: TrackedRun, done_steps: int):
        self.heard: list[int] = []
        made.append(self)
        if self.breaks == 0:
            raise ConnectionError("no such\nhost")

    def tell(self, step: Step) -> None:
        if step.number == self.breaks:
            raise OSError("gone")
        self.heard.append(step.number)

    def close(self) -> None:
        self.heard.append(-1)


class AtStart(Own):
    breaks = 0


class InTheMiddle(Own):
    breaks = 2


class Hangs(Own):
    freed = threading.Event()

    def tell(self, step: Step) -> None:
        self.freed.wait(600)


class OneThatGoesBack(Own):
    can_go_back = True


made: list[Own] = []


class Known:
    """A registry of this test's trackers."""

    def get(self, name: str) -> type[Tracker]:
        if name == "missing":
            raise ModuleNotFoundError("No module named 'missing'", name="missing")
        return {"own": Own, "start": AtStart, "middle": InTheMiddle, "hangs": Hangs, "back": OneThatGoesBack}[name]


@pytest.fixture
def own(monkeypatch, caplog):
    made.clear()
    monkeypatch.setattr(tracking, "trackers", Known())
    caplog.set_level(logging.WARNING, "gcpo_mcore")
    return caplog


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("start", "tracker start is left out from here on: ConnectionError: no such host"),
        ("middle", "tracker middle is left out from here on: OSError: gone"),
        ("missing", "tracker missing is left out from here on: No module named 'missing' "
         "(pip install 'gcpo-mcore[missing]')"),
    ],
)  # fmt: skip
def test_a_tracker_that_fails_is_one_warning_and_the_others_go_on(tmp_path, own, name, words):
    both = Tracking([name, "own"], run_at(tmp_path), done_steps=-1)
    for number in range(1, 5):
        both.tell(step(number))
    both.close()
    assert [record.getMessage() for record in own.records] == [words]
    (good,) = [one for one in made if type(one) is Own]
    assert good.heard == [1, 2, 3, 4, -1]


def test_a_tracker_that_hangs_holds_nobody_up(tmp_path, own, monkeypatch):
    monkeypatch.setattr(tracking, "STEPS_WAITING", 3)
    Hangs.freed.clear()
    one = Tracking(["hangs"], run_at(tmp_path), done_steps=-1)
    for number in range(1, 10):
        one.tell(step(number))
    one.close()
    Hangs.freed.set()
    assert [record.getMessage() for record in own.records] == [
        "tracker hangs is left out from here on: it is 3 steps behind"
    ]


def test_the_end_of_a_run_does_not_wait_for_ever(tmp_path, own, monkeypatch):
    monkeypatch.setattr(tracking, "CLOSE_S", 0.05)
    Hangs.freed.clear()
    one = Tracking(["hangs"], run_at(tmp_path), done_steps=-1)
    one.tell(step(1))
    one.close()
    Hangs.freed.set()
    assert "did not finish within" in own.records[0].getMessage()


def test_a_continuation_tells_no_step_twice(tmp_path, own):
    for done_steps, numbers in ((-1, (1, 2, 3)), (2, (3, 4))):
        both = Tracking(["own", "back"], run_at(tmp_path), done_steps)
        for number in numbers:
            both.tell(step(number))
        both.close()
    heard = {(type(one), i): one.heard for i, one in enumerate(sorted(made, key=lambda one: type(one).__name__))}
    assert sorted(map(tuple, heard.values())) == [(1, 2, 3, -1), (1, 2, 3, -1), (3, 4, -1), (4, -1)]

"""A small grid, run for real: killed launcher, killed cell, failed cell, report of run folders."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gcpo_mcore.monitor.metrics import read_metrics
from tests.jobs import wait_for
from tests.launching import ENVIRONMENT, ROOT, launch, run
from tests.still import Standstill

TOOL = "tools/ablate.py"


def arguments(carry: Path, out: Path) -> list[str]:
    return [
        "algorithm=gcpo", "algorithm/golden=all_wrong,off", "seed=0,1", f"prepared={carry}", f"model.path={carry}/init",
        "trainer.steps=4", "trainer.prompts_per_step=4", "trainer.samples_per_prompt=4",
        "trainer.checkpoint_every_steps=2", "evaluation.every_steps=2", "monitor.trackers=[]",
        "data.eval.easy.max_rows=8", "data.eval.hard.max_rows=8", f"out={out}", "parallel_cells=2",
        "monitor.stop_deadline_s=30",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def grid(carry, tmp_path_factory) -> Path:
    """The folder of a grid that nothing disturbed."""
    out = tmp_path_factory.mktemp("grid") / "whole"
    shown = run(TOOL, *arguments(carry, out))
    assert f"report: {out}/report.md" in shown
    return out


def test_report_has_every_cell(grid):
    rows = list(csv.DictReader((grid / "results.csv").open()))
    assert [(r["algorithm/golden"], r["seed"]) for r in rows] == [
        (golden, seed) for golden in ("all_wrong", "off") for seed in "01"
    ]
    for row in rows:
        lines = read_metrics(grid / "cells" / row["run"])
        scores = [line["val/hard/avg@1"] for line in lines if "val/hard/avg@1" in line]
        assert float(row["val/hard/avg@1 final"]) == scores[-1] and float(row["val/hard/avg@1 best"]) == max(scores)
        injected = sum(line.get("groups/golden_injected", 0) for line in lines)
        assert float(row["golden injected"]) == injected
        assert (injected > 0) == (row["algorithm/golden"] == "all_wrong")
    report = (grid / "report.md").read_text()
    assert "| golden=all_wrong | 2 |" in report and "| algorithm/golden | all_wrong → off |" in report
    assert "95% confidence interval" in report and "megatron-core 0." in report
    page = (grid / "report.html").read_text()
    assert page.startswith("<!doctype html>") and "data:image/png;base64," in page
    assert (grid / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_grid_is_not_run_again(grid, carry):
    before = {p: p.stat().st_mtime_ns for p in (grid / "cells").rglob("metrics.jsonl")}
    results = (grid / "results.csv").read_bytes()
    run(TOOL, *arguments(carry, grid))
    assert before == {p: p.stat().st_mtime_ns for p in (grid / "cells").rglob("metrics.jsonl")}
    assert results == (grid / "results.csv").read_bytes()


def test_killed_launcher_and_killed_cell_leave_the_same_results(grid, carry, tmp_path):
    """kill -9 of the launcher ends its cells; SIGTERM of the next one stops them, and none is begun; the third loses a
    cell to kill -9, retries it, and finishes."""
    out, log = tmp_path / "killed", tmp_path / "log"
    still = Standstill(tmp_path, "os.rename", "step_000003.jsonl")  # the rollouts of every cell's third step

    def start() -> subprocess.Popen:
        env = still.environment(ENVIRONMENT)
        with open(log, "w") as file:
            return subprocess.Popen([sys.executable, TOOL, *arguments(carry, out)], cwd=ROOT, env=env, stdout=file,
                                    stderr=file)  # fmt: skip

    first = start()
    wait_for(still.is_met, [first], log)
    cells = psutil.Process(first.pid).children()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    _, alive = psutil.wait_procs(cells, timeout=600)
    assert cells and not alive
    assert not (out / "results.csv").exists()

    still.again()
    still = Standstill(tmp_path, "os.rename", "rollouts/")  # of whichever step comes first: a third one may be behind
    second = start()
    wait_for(still.is_met, [second], log)
    second.terminate()
    still.end()
    assert second.wait(timeout=1200) == 75, log.read_text()
    assert log.read_text().endswith("stopped; the same command goes on\n") and "Traceback" not in log.read_text()
    assert len(list((out / "cells").iterdir())) == 2
    # At a step's end, or before the first one: one cell may stand in a step while the other begins.
    assert all("\nSIGTERM: stopped " in path.read_text() for path in out.glob("*.log"))

    still = Standstill(tmp_path, "os.rename", "step_000003.jsonl")
    still.again()
    third = start()
    wait_for(still.is_met, [third], log)
    psutil.Process(third.pid).children()[0].kill()
    still.end()
    assert third.wait(timeout=1200) == 0, log.read_text()
    assert (out / "results.csv").read_bytes() == (grid / "results.csv").read_bytes()


def test_a_cell_that_cannot_run_does_not_stop_the_others(grid, carry, tmp_path):
    shorter = [
        a for a in arguments(carry, tmp_path / "g") if not a.startswith(("algorithm/golden", "seed", "model.path"))
    ]
    done = launch(TOOL, *shorter, "seed=0", f"model.path={carry}/init,{carry}/nowhere")
    assert done.returncode == 1
    report = (tmp_path / "g/report.md").read_text()
    assert "**failed**" in report and "nowhere" in report and "exit 2" in report
    assert len((tmp_path / "g/results.csv").read_text().splitlines()) == 2


def test_cells_as_jobs_give_the_same_results(grid, carry, tmp_path):
    """submitit with its own processes in place of Slurm, which is refused where there is none."""
    out = tmp_path / "jobs"
    run(TOOL, *arguments(carry, out), "launcher=submitit-local", "submitit.timeout_min=10")
    assert (out / "results.csv").read_bytes() == (grid / "results.csv").read_bytes()
    assert len(list((out / "jobs").glob("*_result.pkl"))) == 4
    done = launch(TOOL, *arguments(carry, tmp_path / "none"), "launcher=slurm")
    assert done.returncode == 2 and "launcher=slurm" in done.stderr


def test_another_grid_under_the_same_name_is_refused(grid, carry):
    done = launch(TOOL, *arguments(carry, grid), "optimizer.lr=1e-5")
    assert done.returncode == 2 and "choose another --out" in done.stderr


def test_report_of_run_folders_finds_what_differs(grid, tmp_path):
    folders = [str(p) for p in sorted((grid / "cells").iterdir())]
    run(TOOL, "report", *folders, "--out", str(tmp_path / "r"))
    report = (tmp_path / "r/report.md").read_text()
    assert "| name=all_wrong | 2 |" in report and "| name=off | 2 |" in report

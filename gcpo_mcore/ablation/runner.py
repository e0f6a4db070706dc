"""Runs the cells of a grid as processes of their own, some side by side; what is finished is not run again.

A cell is the command `train` with its own run folder, so it resumes by itself. A cell that fails is tried once more,
then reported, and the others go on. One that a signal stopped is not.
"""

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gcpo_mcore.ablation.grid import Cell, Grid
from gcpo_mcore.ablation.launchers import Launcher
from gcpo_mcore.base import stop
from gcpo_mcore.base.errors import EXIT_CODE, UserError
from gcpo_mcore.base.files import write_atomically
from gcpo_mcore.base.program import command
from gcpo_mcore.monitor.metrics import read_metrics
from gcpo_mcore.run.load import shown

TRIES = 2


def cells_folder(grid_folder: Path) -> Path:
    """The folder in which the run folders of a grid's cells are."""
    return grid_folder / "cells"


def run_grid(
    grid: Grid, folder: Path, side_by_side: int, launcher: Launcher, watch: Callable[[dict[str, str]], None]
) -> dict[str, str]:
    """Runs every cell, `side_by_side` at a time; returns cell name -> 'finished', 'stopped' or 'failed: ...'.

    `watch` is given the states now and then. A KeyboardInterrupt stops the cells that run, and is raised again.
    UserError if `folder` holds a grid with other cells of the same names.
    """
    cells_folder(folder).mkdir(parents=True, exist_ok=True)
    _keep(grid, folder)
    _prepare(grid, side_by_side)
    states = {cell.name: "waiting" for cell in grid.cells}
    done = threading.Event()

    def show() -> None:
        while not done.wait(1.0):
            watch(states)

    watcher = threading.Thread(target=show, daemon=True)
    watcher.start()
    try:
        with ThreadPoolExecutor(side_by_side) as pool:
            try:
                list(pool.map(lambda cell: _run_cell(cell, folder, launcher, states), grid.cells))
            except KeyboardInterrupt:  # those that wait are not begun any more
                launcher.stop()
                raise
    finally:
        done.set()
        watcher.join()
        watch(states)
    return states


def _run_cell(cell: Cell, folder: Path, launcher: Launcher, states: dict[str, str]) -> None:
    run_folder = cells_folder(folder) / cell.name
    steps = cell.config.trainer.steps
    if (run_folder / "hf").is_dir() and _last_step(run_folder) >= steps:
        states[cell.name] = "finished"
        return
    words = [sys.executable]
    if cell.processes > 1:
        words += ["-m", "gcpo_mcore.base.torchrun", "--standalone", "--nproc-per-node", str(cell.processes)]
    words += ["-m", "gcpo_mcore.commands.train", *cell.overrides]
    words += [f"run.folder={cells_folder(folder)}", f"run.name={cell.name}"]
    for attempt in range(1, TRIES + 1):
        log = folder / f"{cell.name}.log"
        child = launcher.start(cell.name, words, log)
        while (code := child.poll()) is None:
            states[cell.name] = f"step {_last_step(run_folder)}/{steps}" + (", again" if attempt > 1 else "")
            time.sleep(0.5)
        if code == 0:
            states[cell.name] = "finished"
            return
        if code == stop.EXIT_CODE:
            states[cell.name] = "stopped"
            return  # by somebody who wants that; the next launch of the grid goes on with it
        last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
        states[cell.name] = f"failed: exit {code}" + "".join(f", {line[:160]}" for line in last)
        if code == EXIT_CODE:
            return  # a mistake in the command: the same would come out again


def _last_step(run_folder: Path) -> int:
    return max((line["step"] for line in read_metrics(run_folder)), default=0)


def _keep(grid: Grid, folder: Path) -> None:
    """Writes grid.json; a grid may grow by cells, but a name keeps its command line."""
    path = folder / "grid.json"
    cells = {
        cell.name: {"name": cell.name, "factors": cell.factors, "seed": cell.seed, "overrides": shown(cell.overrides)}
        for cell in grid.cells
    }
    if path.is_file():
        for name, before in json.loads(path.read_text())["cells"].items():
            if name in cells and before["overrides"] != cells[name]["overrides"]:
                raise UserError(
                    f"{path}: cell {name} was made with {' '.join(before['overrides'])}, not "
                    f"{' '.join(cells[name]['overrides'])}; choose another --out"
                )
    about = {"name": grid.name, "question": grid.question, "budget": grid.budget, "cells": cells}
    write_atomically(path, json.dumps(about, indent=1) + "\n")


def _prepare(grid: Grid, side_by_side: int) -> None:
    """The files that the grid names, and data and starter of the quick-start task for every seed that has none yet."""
    seeds = {}
    for cell in grid.cells:
        config, starter = cell.config, Path(cell.config.prepared) / "starter"
        uses_starter = config.data.name == "carry" and Path(config.model.path) == starter
        seeds[config.prepared] = (config.seed, uses_starter and not starter.is_dir())

    def make(prepared: str) -> None:
        seed, is_missing = seeds[prepared]
        if is_missing:
            _run("prepare", "--seed", str(seed), "--out", prepared)
        for file, line in grid.prepare.items():
            if not Path(file.format(prepared=prepared)).exists():
                tool, *arguments = shlex.split(line.format(prepared=prepared))
                _run(Path(tool).stem.removeprefix("gcpo-"), *arguments)

    with ThreadPoolExecutor(side_by_side) as pool:
        list(pool.map(make, seeds))


def _run(name: str, *arguments: str) -> None:
    """The command `name` of ours. UserError with its last words if it fails."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    words = [sys.executable, "-m", f"gcpo_mcore.commands.{name}", *arguments]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        line = shlex.join([*command(name).split(), *arguments])
        raise UserError(f"{line}: exit {done.returncode}" + "".join(f", {said}" for said in last))

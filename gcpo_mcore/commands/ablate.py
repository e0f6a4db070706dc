"""A grid of training runs, and its report.

    python tools/ablate.py experiment=gcpo_ablation                        # configs/ablation/gcpo_ablation.yaml
    python tools/ablate.py algorithm=gcpo algorithm/kl=off,k3 seed=0,1,2   # ad hoc, Hydra's sweep syntax
    python tools/ablate.py report runs/A runs/B [--out DIR] [--axis tokens]   # of any run folders

Options beside the overrides: parallel_cells=N cells side by side (2; on GPUs, each has its own), processes=N of each
cell, out=DIR
(runs/ablations/NAME), dry_run=true (print the cells and their plan: layout, sizes, memory, what this machine lacks;
start nothing), note=TEXT (for the report's head), axis=tokens (curves over the model's tokens in place of steps; cells
may then have different numbers of steps), launcher=slurm (hand the cells to Slurm by submitit;
submitit.slurm_partition=gpu and so on are its settings). The same command goes on where it was stopped: finished cells
are not run again, half-done ones resume. SIGTERM and ctrl-C stop the cells that run, each with a
checkpoint. Exit code 1 if a cell failed (the report has the others), 75 if a signal stopped the grid.
"""

import argparse
import shlex
import signal
import sys
from pathlib import Path
from typing import Literal

from gcpo_mcore.base import program, stop
from gcpo_mcore.base.errors import EXIT_CODE, UserError, nearest
from gcpo_mcore.base.files import places_told
from gcpo_mcore.monitor.run_log import log_to_stderr

OPTIONS = {
    "parallel_cells": "2",
    "processes": "",
    "out": "",
    "dry_run": "false",
    "launcher": "local",
    "note": "",
    "axis": "steps",
}
SETTING = "submitit."


def ablate(arguments: list[str]) -> int:
    """Runs the grid of a command line and writes its report; the exit code. UserError for a grid that is wrong."""
    from gcpo_mcore.ablation.grid import read_grid
    from gcpo_mcore.ablation.launchers import Local, Submitit
    from gcpo_mcore.ablation.report import write_report
    from gcpo_mcore.ablation.runner import cells_folder, run_grid
    from gcpo_mcore.ablation.runs import read_run
    from gcpo_mcore.base.platform import visible_gpus
    from gcpo_mcore.monitor.tables import GridView
    from gcpo_mcore.run.load import shown

    options = OPTIONS | dict(a.split("=", 1) for a in arguments if a.split("=")[0] in OPTIONS)
    settings = dict(a.removeprefix(SETTING).split("=", 1) for a in arguments if a.startswith(SETTING))
    axis = _axis(options["axis"])
    overrides = [a for a in arguments if a.split("=")[0] not in OPTIONS and not a.startswith(SETTING)]
    grid = read_grid(overrides, processes=int(options["processes"]) if options["processes"] else None)
    folder = Path(options["out"] or f"runs/ablations/{grid.name}")
    if options["dry_run"] == "true":
        return preview(grid)
    if options["launcher"] == "local":
        launcher = Local(visible_gpus(), max(cell.processes for cell in grid.cells))
    else:
        typed = {name: int(value) if value.isdigit() else value for name, value in settings.items()}
        launcher = Submitit(folder, options["launcher"].removeprefix("submitit-"), typed)
    with GridView(grid.name) as view:
        states = run_grid(grid, folder, int(options["parallel_cells"]), launcher, view.show)
    finished = [cell for cell in grid.cells if states[cell.name] == "finished"]
    if finished:
        runs = [read_run(cells_folder(folder) / cell.name, cell.factors) for cell in finished]
        about = {
            "question": grid.question,
            "command": " ".join(
                [program.command("ablate"), shlex.join(shown(a for a in arguments if not a.startswith("note=")))]
            ),
            "the same for every cell": grid.budget,
        }
        if options["note"]:
            about["note"] = options["note"]
        failed = {name: state for name, state in states.items() if state != "finished"}
        if failed:
            about["failed"] = "; ".join(f"{name} ({state})" for name, state in failed.items())
        write_report(runs, folder, about, axis)
        print(f"report: {folder / 'report.md'} and {folder / 'report.html'}")
    return 0 if len(finished) == len(grid.cells) else 1


def preview(grid) -> int:
    """Prints every cell's command line and the plan of every kind of cell. UserError if a layout is impossible."""
    from rich.console import Console

    from gcpo_mcore.ablation.preview import PROBLEM, plans
    from gcpo_mcore.base.platform import gpus
    from gcpo_mcore.monitor.tables import print_sizes
    from gcpo_mcore.run.load import shown

    for cell in grid.cells:
        print(f"{cell.name}:  {program.command('train')} {shlex.join(shown(cell.overrides))}")
    found = plans(grid, gpus())
    for title, sizes in found.items():
        print_sizes(title, sizes, Console())
    for title, sizes in found.items():
        if PROBLEM in sizes:
            raise UserError(f"{title}: {sizes[PROBLEM]}")
    return 0


def _axis(name: str) -> Literal["steps", "tokens"]:
    """The axis of that name. UserError if there is none."""
    if name == "steps" or name == "tokens":
        return name
    raise UserError(f"axis={name}: unknown{nearest(name, ('steps', 'tokens'))}; known: steps, tokens")


def report(folders: list[Path], out: Path, axis: str) -> int:
    """Writes the report of run folders into `out`; the exit code."""
    from gcpo_mcore.ablation.report import write_report
    from gcpo_mcore.ablation.runs import compare_factors, read_run

    for folder in folders:
        read_run(folder)
    runs = [read_run(folder, factors) for folder, factors in zip(folders, compare_factors(folders), strict=True)]
    write_report(
        runs, out, {"question": "How do these runs compare?", "runs": ", ".join(map(str, folders))}, _axis(axis)
    )
    print(f"report: {out / 'report.md'} and {out / 'report.html'}")
    return 0


@log_to_stderr()
def main() -> int:
    """The command."""
    try:
        if sys.argv[1:2] == ["report"]:
            parser = argparse.ArgumentParser(prog=f"{program.name()} report")
            parser.add_argument("folders", nargs="+", type=Path)
            parser.add_argument("--out", type=Path, default=Path("runs/report"))
            parser.add_argument("--axis", choices=("steps", "tokens"), default="steps", help="of the curves")
            args = parser.parse_args(sys.argv[2:])
            return report(args.folders, args.out, args.axis)
        if not sys.argv[1:] or sys.argv[1] in ("-h", "--help"):
            print(f"usage: {program.name()} [option=value ...] [group=option ...] [key=value ...]\n")
            print(program.help_page(__doc__))
            return 0
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with places_told():
            return ablate(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CODE
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return stop.EXIT_CODE


if __name__ == "__main__":
    sys.exit(main())

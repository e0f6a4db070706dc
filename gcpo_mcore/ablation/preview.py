"""The plan of a grid before it runs: processes, layout, sizes, memory of every kind of cell, and what is missing.

Needs no weights: of a model its config.json is read; those of known models are in configs/shapes/.
"""

from collections.abc import Sequence
from pathlib import Path

from gcpo_mcore.ablation.grid import Cell, Grid
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.program import command
from gcpo_mcore.hf.hub import find_config

PROBLEM = "does not fit together"


def plans(grid: Grid, gpus_here: int) -> dict[str, dict[str, object]]:
    """The sizes of every model and layout among the cells, by title; PROBLEM is among them where the two do not fit.

    Nothing is downloaded.

    `gpus_here`: of this machine, 0 for none. Memory is of the process that needs the most, as on a GPU.
    """
    kinds: dict[str, list[Cell]] = {}
    for cell in grid.cells:
        c = cell.config
        kinds.setdefault(repr((c.model, c.parallel, c.rollout, c.trainer, cell.processes)), []).append(cell)
    return {
        f"{cells[0].name}{f' and {len(cells) - 1} more' if len(cells) > 1 else ''}": _plan(cells, grid, gpus_here)
        for cells in kinds.values()
    }


def _plan(cells: list[Cell], grid: Grid, gpus_here: int) -> dict[str, object]:
    from gcpo_mcore.sizing.estimate import estimate_run

    config, processes = cells[0].config, cells[0].processes
    p = config.parallel
    data = processes / (p.tensor * p.pipeline * p.context)
    sizes: dict[str, object] = {
        "model": config.model.path,
        "processes": f"{processes} = data {data:g} x tensor {p.tensor} x pipeline {p.pipeline} x context {p.context}",
        "missing here": "; ".join(_missing(cells, grid, gpus_here)) or "nothing",
    }
    if find_config(config.model.path) is None:
        return sizes
    try:
        estimate = estimate_run(config, processes)
    except UserError as error:
        return sizes | {PROBLEM: str(error)}
    (held,) = (max(one.in_phase) for one in estimate.components if one.name == "parameters")
    return sizes | {
        "parameters": estimate.arch.parameters,
        "parameters of a process": held // (2 if config.model.dtype == "bfloat16" else 4),
        "memory of a GPU": f"{estimate.peak_gib:.1f} GiB ({command('doctor')} plan has the parts)",
    }


def _missing(cells: Sequence[Cell], grid: Grid, gpus_here: int) -> list[str]:
    """The things that have to be there before the cells can run, and are not."""
    config, processes = cells[0].config, cells[0].processes
    found = find_config(config.model.path)
    told = []
    if found is None or not found.has_weights:
        told.append(f"weights of {config.model.path}")
    made = {Path(file.format(prepared=cell.config.prepared)) for cell in cells for file in grid.prepare}
    sources = [*config.data.train.values(), *config.data.eval.values()]
    for path in (source.path for source in sources):
        if not path.startswith("hf:") and not Path(path).exists():
            told.append(path + (" (the grid makes it)" if Path(path) in made or config.data.name == "carry" else ""))
    if config.model.dtype == "bfloat16" and gpus_here < processes:
        told.append(f"GPUs: {processes} are needed, {gpus_here} are here")
    return told

"""Fills the figures of docs/results/README.md, docs/ablations.md and docs/choosing.md in from the results.csv files:

    python bench/results_readme.py

A figure stands between two comments, the first of which says what it is:

    <!--cell GRID METRIC CELL-->0.94 ± 0.03<!---->                             mean over seeds, half of its 95% interval
    <!--change GRID METRIC CELL CELL-->+0.03 (-0.00 to +0.07)<!---->           second minus first, paired by seed
    <!--effect GRID METRIC FACTOR LEVEL LEVEL-->-0.54 (-0.66 to -0.41)<!---->  marginal effect, second level minus first

CELL is its levels with "/" between them; with GRID: before them it is of another grid (the same seeds, starters and
prompts). METRIC is hard or easy (held-out accuracy at the last step), or a column of results.csv with '_' for ' '.
tests/ablation/test_results.py sees that the files are what this makes.
"""

import csv
import re
import sys
from pathlib import Path

from gcpo_mcore.ablation.runs import Run
from gcpo_mcore.ablation.statistics import Estimate, effects, estimate

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
DOCUMENTS = (RESULTS / "README.md", RESULTS.parent / "ablations.md", RESULTS.parent / "choosing.md")
FIGURE = re.compile(r"<!--(cell|change|effect) ([^>]*?)-->.*?<!---->")
NOT_FACTORS = re.compile(r"run|seed|val/.*|golden injected|all wrong, .*|sampled tokens")


def read_results(grid: str) -> list[Run]:
    """The rows of a grid's results.csv."""
    runs = []
    for row in csv.DictReader((RESULTS / grid / "results.csv").open()):
        factors = {key: value for key, value in row.items() if not NOT_FACTORS.fullmatch(key)}
        numbers = {key: float(v) for key, v in row.items() if NOT_FACTORS.fullmatch(key) and key not in ("run", "seed")}
        runs.append(Run(row["run"], int(row["seed"]), factors, 0, {}, numbers))
    return runs


def figure(kind: str, grid: str, metric: str, *what: str) -> str:
    """The text of one figure. KeyError for a cell, column or level that the results do not have."""
    column = f"val/{metric}/avg@1 final" if metric in ("hard", "easy") else metric.replace("_", " ")
    if kind == "effect":
        factor, base, level = what
        runs = read_results(grid)
        runs.sort(key=lambda run: run.factors[factor] != base)  # `effects` takes the first level as the base
        found = {(e.factor, e.base, e.level): e for e in effects(runs, lambda run: run.totals[column])}
        return _signed(found[factor, base, level].difference)
    values = [_of_cell(grid, name, column) for name in what]
    if kind == "cell":
        e = estimate(list(values[0].values()))
        digits = 2 if metric in ("hard", "easy") or e.mean < 1 else 0
        if e.n == 1:
            return f"{e.mean:,.{digits}f} (one seed)"
        return f"{e.mean:,.{digits}f} ± {e.half_width:,.{digits}f}"
    base, other = values
    return _signed(estimate([other[seed] - base[seed] for seed in base]))


def _of_cell(grid: str, name: str, column: str) -> dict[int, float]:
    """Seed -> the value of a cell's run."""
    *other, name = name.split(":")
    found = {
        run.seed: run.totals[column] for run in read_results(*other or [grid]) if "/".join(run.factors.values()) == name
    }
    if not found:
        raise KeyError(f"{grid}: no cell {name}")
    return found


def _signed(e: Estimate) -> str:
    if e.n == 1:
        return f"{e.mean:+.2f} (one seed)"
    return f"{e.mean:+.2f} ({e.low:+.2f} to {e.high:+.2f})"


def filled(text: str) -> str:
    """`text` with every figure as the results have it."""
    return FIGURE.sub(lambda m: f"<!--{m[1]} {m[2]}-->{figure(m[1], *m[2].split())}<!---->", text)


def main() -> int:
    for path in DOCUMENTS:
        path.write_text(filled(path.read_text()))
        print(f"{path}: {len(FIGURE.findall(path.read_text()))} figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())

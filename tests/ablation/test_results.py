"""The figures in the documents are those of the results beside them."""

import csv
from statistics import mean, stdev

import pytest

from bench import results_readme

GRID = "gcpo_vs_dapo_vs_grpo"
STUDENT_T = {3: 4.3027}  # of a 95% interval, by the number of seeds (a table's value)


@pytest.mark.parametrize("path", results_readme.DOCUMENTS, ids=lambda path: path.name)
def test_documents_have_the_figures_of_the_results(path):
    text = path.read_text()
    assert len(results_readme.FIGURE.findall(text)) >= 5
    assert results_readme.filled(text) == text
    assert text.count("<!---->") == len(results_readme.FIGURE.findall(text))  # every end has a beginning


@pytest.fixture(scope="module")
def column_of():
    """(cell, column) -> the values of its three seeds, in their order, read from results.csv without our reader."""
    with (results_readme.RESULTS / GRID / "results.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["seed"]))
    return lambda cell, column: [float(row[column]) for row in rows if row["variant"] == cell]


def _half_width(values: list[float]) -> float:
    return STUDENT_T[len(values)] * stdev(values) / len(values) ** 0.5


def test_a_cells_figure_is_its_mean_and_interval(column_of):
    hard = column_of("gcpo", "val/hard/avg@1 final")
    assert results_readme.figure("cell", GRID, "hard", "gcpo") == f"{mean(hard):.2f} ± {_half_width(hard):.2f}"
    injected = column_of("gcpo", "golden injected")
    expected = f"{mean(injected):.0f} ± {_half_width(injected):.0f}"
    assert results_readme.figure("cell", GRID, "golden_injected", "gcpo") == expected


def test_a_change_is_paired_by_seed(column_of):
    pairs = zip(column_of("gcpo", "val/hard/avg@1 final"), column_of("supervised", "val/hard/avg@1 final"), strict=True)
    differences = [supervised - gcpo for gcpo, supervised in pairs]
    low, high = mean(differences) - _half_width(differences), mean(differences) + _half_width(differences)
    change = results_readme.figure("change", GRID, "hard", "gcpo", "supervised")
    effect = results_readme.figure("effect", GRID, "hard", "variant", "gcpo", "supervised")
    assert change == effect == f"{mean(differences):+.2f} ({low:+.2f} to {high:+.2f})"

"""The figures of several models on several benchmarks: tables for the terminal, markdown and JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from gcpo_mcore.base.files import write_atomically
from gcpo_mcore.evaluation.config import Benchmark
from gcpo_mcore.evaluation.estimators import Estimate, average_at, paired_difference
from gcpo_mcore.evaluation.measure import figures

Table = tuple[str, list[str], list[dict[str, str]]]  # title, columns, rows
ByModel = Mapping[str, Mapping[str, Sequence[dict[str, Any]]]]  # model -> benchmark -> records


class _Plain(TypedDict):
    """An `Estimate` as json has it."""

    mean: float
    standard_error: float | None


def summary(records: ByModel, benchmarks: Mapping[str, Benchmark]) -> dict[str, Any]:
    """Everything as plain data: protocol and figures per benchmark and model, and the last model's paired differences.

    Shares are fractions of 1; 'tokens' is the mean length of a response.
    """
    models = list(records)
    found: dict[str, Any] = {"models": models, "benchmarks": {}}
    for name, benchmark in benchmarks.items():
        entry: dict[str, Any] = benchmark.model_dump(
            mode="json", include={"protocol", "source", "samples_per_problem", "sampling", "prompt"}
        )
        entry["problems"] = len(records[models[0]][name])
        entry["figures"] = {
            model: {key: _plain(value) for key, value in figures(records[model][name], benchmark.pass_at).items()}
            for model in models
        }
        entry["differences"] = {
            f"{models[-1]} - {other}": _plain(
                paired_difference(_averages(records[models[-1]][name]), _averages(records[other][name]))
            )
            for other in models[:-1]
        }
        found["benchmarks"][name] = entry
    return found


def tables(found: Mapping[str, Any]) -> list[Table]:
    """One table of figures per benchmark, and one of differences if there are several models. Shares in percent."""
    made: list[Table] = []
    differences: list[dict[str, str]] = []
    for name, entry in found["benchmarks"].items():
        sampling, first = entry["sampling"], next(iter(entry["figures"].values()))
        how = "greedy" if sampling["temperature"] == 0 else f"temperature {sampling['temperature']}"
        title = f"{name}: {entry['problems']} problems, {how}, {entry['samples_per_problem']} samples a problem, in %"
        rows = [{"model": model, **_shown_row(values)} for model, values in entry["figures"].items()]
        made.append((title, ["model", *_shown_row(first)], rows))
        for pair, value in entry["differences"].items():
            differences.append({"benchmark": name, "models": pair, "difference": _percent(value, sign=True)})
    if differences:
        title = "differences of the mean accuracy on the same problems, in points"
        made.append((title, ["benchmark", "models", "difference"], differences))
    return made


def write_results(folder: Path, found: Mapping[str, Any]) -> None:
    """Writes FOLDER/results.json and FOLDER/results.md."""
    lines = []
    for title, columns, rows in tables(found):
        lines += [f"**{title}**", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [f"| {' | '.join(row[column] for column in columns)} |" for row in rows] + [""]
    lines += ["± is the standard error over problems.", ""]
    lines += [f"- {name}: {e['protocol']} Source: {e['source']}." for name, e in found["benchmarks"].items()]
    write_atomically(folder / "results.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    write_atomically(folder / "results.md", "\n".join(lines) + "\n")


def _averages(records: Sequence[dict[str, Any]]) -> list[float]:
    return [average_at([sample["correct"] for sample in record["samples"]]) for record in records]


def _shown_row(values: Mapping[str, _Plain]) -> dict[str, str]:
    return {key: f"{value['mean']:.0f}" if key == "tokens" else _percent(value) for key, value in values.items()}


def _percent(value: _Plain, sign: bool = False) -> str:
    error = "" if value["standard_error"] is None else f" ± {100 * value['standard_error']:.1f}"
    return f"{100 * value['mean']:{'+' if sign else ''}.1f}{error}"


def _plain(value: Estimate) -> _Plain:
    return {"mean": value.mean, "standard_error": value.standard_error}

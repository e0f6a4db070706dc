"""The report of a set of runs: report.md, report.html (one file, plots inside), results.csv, timing.csv, curves.png.

results.csv has only what a repeated grid reproduces to the bit on the CPU; seconds stand in timing.csv.
"""

import base64
import csv
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from gcpo_mcore.ablation.runs import Run
from gcpo_mcore.ablation.statistics import Effect, Estimate, by_cell, effects, effects_within, estimate
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.files import write_atomically
from gcpo_mcore.base.places import package_version

COLOURS = ("#c9820a", "#3366aa", "#559944", "#aa3355", "#7755aa", "#228888", "#885533", "#777777")
Axis = Literal["steps", "tokens"]
XLABELS = {"steps": "step", "tokens": "model tokens: sampled, scored and trained"}
MOST_BANDS = 8  # with more cells they hide each other
STYLES = ("-", "--", ":")
PACKAGES = ("torch", "megatron-core", "transformers")
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{border-bottom:1px solid #ddd;padding:.3em .8em;text-align:right}
td:first-child,th:first-child{text-align:left}th{background:#f5f5f5}img{max-width:100%}code{background:#f5f5f5}
tr:hover{background:#fafae8}"""


@dataclass(frozen=True)
class Table:
    """A title, a note below it, the header and the rows of text."""

    title: str
    note: str
    header: list[str]
    rows: list[list[str]]


def write_report(runs: Sequence[Run], out: Path, about: dict[str, str], axis: Axis = "steps") -> None:
    """Writes the five files into `out`. about: lines for the head ('question', 'command', ...).

    axis: what the curves are drawn over; 'tokens' are those of the model (gcpo_mcore/run/cost.py), and runs of
    different lengths may then be compared.

    UserError if the runs are not of one length or not evaluated on the same sources.
    """
    _check(runs, axis)
    out.mkdir(parents=True, exist_ok=True)
    about = about | {
        "seeds": ", ".join(str(s) for s in sorted({run.seed for run in runs})),
        "made with": ", ".join([*(f"{name} {version(name)}" for name in PACKAGES), f"gcpo-mcore {package_version()}"]),
    }
    tables = [_cells_table(runs, axis), *_effect_tables(runs), _usage_table(runs)]
    write_atomically(out / "results.csv", _results(runs))
    write_atomically(out / "timing.csv", _timing(runs))
    picture = _curves(runs, axis)
    (out / "curves.png").write_bytes(picture)
    write_atomically(out / "report.md", _markdown(about, tables))
    write_atomically(out / "report.html", _html(about, tables, picture))


def metrics_of(runs: Sequence[Run]) -> list[str]:
    """The held-out accuracies, hard ones first: they are what the comparison is about."""
    return sorted(runs[0].curves, key=lambda name: ("hard" not in name, name))


def label(factors: Sequence[tuple[str, str]]) -> str:
    """The factors as 'golden=off importance=token'; the bare name of a variant."""
    return " ".join(v if k == "variant" else f"{k.split('/')[-1].split('.')[-1]}={v}" for k, v in factors) or "all"


def _check(runs: Sequence[Run], axis: Axis) -> None:
    if not runs:
        raise UserError("no run to report on")
    for run in runs:
        if run.curves.keys() != runs[0].curves.keys():
            raise UserError(
                f"{run.name} was evaluated on {sorted(run.curves)}, {runs[0].name} on {sorted(runs[0].curves)}"
            )
        if axis == "tokens" and not run.cost[run.steps]:
            raise UserError(f"{run.name} did not count its model tokens: its version was older; axis=steps")
        if axis == "steps" and run.steps != runs[0].steps:
            raise UserError(
                f"{run.name} has {run.steps} steps, {runs[0].name} has {runs[0].steps}: not comparable "
                "(but over model tokens, axis=tokens)"
            )


def _shown(e: Estimate) -> str:
    return f"{e.mean:.3f}" if math.isnan(e.half_width) else f"{e.mean:.3f} ± {e.half_width:.3f}"


def _cells_table(runs: Sequence[Run], axis: Axis) -> Table:
    metrics, cells = metrics_of(runs), by_cell(runs)
    first = next(iter(cells.values()))
    base = estimate([run.final(metrics[0]) for run in first])
    rows = []
    for factors, found in cells.items():
        row = [label(factors), str(len(found))]
        for metric in metrics:
            row += [
                _shown(estimate([r.final(metric) for r in found])),
                _shown(estimate([r.best(metric) for r in found])),
            ]
        own = estimate([run.final(metrics[0]) for run in found])
        apart = own.high < base.low or own.low > base.high
        row.append("-" if found is first else "apart" if apart else "overlap")
        rows.append(row)
    header = ["cell", "seeds"] + [f"{m.removeprefix('val/')}, {when}" for m in metrics for when in ("final", "best")]
    note = (
        "Mean over seeds ± half of its 95% confidence interval (Student's t). "
        f"Final: at {f'step {runs[0].steps}' if axis == 'steps' else 'the end of each run'}; "
        "the last column compares the final interval of "
        f"{metrics[0].removeprefix('val/')} with that of the first row."
    )
    return Table("Held-out accuracy", note, [*header, "intervals"], rows)


def _effect_tables(runs: Sequence[Run]) -> list[Table]:
    tables = []
    for metric in metrics_of(runs):

        def final(run: Run, metric: str = metric) -> float:
            return run.final(metric)

        about, header = metric.removeprefix("val/"), ["factor", "change", "effect", "95% interval", "apart from 0"]
        note = (
            "Pairs differ in this factor alone. A seed counts with the mean over its pairs; the interval is over seeds."
        )
        if rows := [_effect_row(e) for e in effects(runs, final)]:
            tables.append(Table(f"Marginal effects on the final {about}", note, header, rows))
        note = "The same among the cells at one level of another factor."
        if rows := [[label([(other, level)]), *_effect_row(e)] for other, level, e in effects_within(runs, final)]:
            tables.append(Table(f"Effects on the final {about}, one other factor fixed", note, ["with", *header], rows))
    return tables


def _effect_row(effect: Effect) -> list[str]:
    e = effect.difference
    return [
        effect.factor,
        f"{effect.base} → {effect.level}",
        f"{e.mean:+.3f}",
        f"[{e.low:+.3f}, {e.high:+.3f}]" if e.n > 1 else "-",
        "yes" if e.low > 0 or e.high < 0 else "no",
    ]


def _usage_table(runs: Sequence[Run]) -> Table:
    names = list(runs[0].totals)
    rows = []
    for factors, found in by_cell(runs).items():
        means = [math.fsum(r.totals[n] for r in found) / len(found) for n in names]
        rows.append(
            [
                label(factors),
                *(f"{m:,.2f}" if n.startswith("all wrong") else f"{m:,.0f}" for n, m in zip(names, means, strict=True)),
            ]
        )
    note = "Sums over a run, means over seeds; all wrong: fraction of the groups in the first and in the last step."
    return Table("Golden answers, groups, cost", note, ["cell", *names], rows)


def _results(runs: Sequence[Run]) -> str:
    factors = list(dict.fromkeys(name for run in runs for name in run.factors))
    metrics = metrics_of(runs)
    totals = [name for name in runs[0].totals if name != "seconds"]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["run", *factors, "seed", *(f"{m} {w}" for m in metrics for w in ("final", "best")), *totals])
    for run in sorted(runs, key=lambda r: r.name):
        scores = [repr(f(m)) for m in metrics for f in (run.final, run.best)]
        values = [run.factors.get(f, "") for f in factors]
        rows.writerow([run.name, *values, run.seed, *scores, *(repr(run.totals[t]) for t in totals)])
    return text.getvalue()


def _timing(runs: Sequence[Run]) -> str:
    lines = [f"{run.name},{run.totals['seconds']:.1f}" for run in sorted(runs, key=lambda r: r.name)]
    return "\n".join(["run,seconds", *lines]) + "\n"


def _curves(runs: Sequence[Run], axis: Axis) -> bytes:
    """Draws a PNG: a panel per metric, a line per cell with the band of its 95% interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metrics, cells = metrics_of(runs), by_cell(runs)
    figure, axes = plt.subplots(1, len(metrics), figsize=(5.6 * len(metrics), 4.4), sharey=True, squeeze=False)
    for panel, metric in zip(axes[0], metrics, strict=True):
        for number, (factors, found) in enumerate(cells.items()):
            # Styles change from cell to cell, solid ones lie below: cells with the same results stay visible.
            colour, layer = COLOURS[number % len(COLOURS)], number % len(STYLES)
            places = _places(found, metric, axis)
            points = [estimate([v for _, v in at]) for at in zip(*(r.curves[metric] for r in found), strict=True)]
            panel.plot(
                places,
                [p.mean for p in points],
                STYLES[layer],
                color=colour,
                linewidth=2,
                zorder=2 + layer,
                label=label(factors),
            )
            if len(found) > 1 and len(cells) <= MOST_BANDS:
                low, high = [max(p.low, 0) for p in points], [min(p.high, 1) for p in points]
                panel.fill_between(places, low, high, color=colour, alpha=0.12, linewidth=0)
        panel.set(title=metric.removeprefix("val/"), xlabel=XLABELS[axis], ylim=(-0.02, 1.02))
        panel.grid(alpha=0.3)
    axes[0][0].set_ylabel("held-out accuracy")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.set_layout_engine("constrained")
    content = io.BytesIO()
    figure.savefig(content, dpi=120, metadata={"Software": None})
    plt.close(figure)
    return content.getvalue()


def _places(runs: Sequence[Run], metric: str, axis: Axis) -> list[float]:
    """Where the evaluations of a cell stand; by tokens, of which each seed needs its own number: their mean."""
    if axis == "steps":
        return [step for step, _ in runs[0].curves[metric]]
    return [
        math.fsum(at) / len(at) for at in zip(*([r.cost[s] for s, _ in r.curves[metric]] for r in runs), strict=True)
    ]


def _markdown(about: dict[str, str], tables: Sequence[Table]) -> str:
    parts = ["# Report\n", "\n".join(f"- **{key}**: {value}" for key, value in about.items()) + "\n"]
    parts.append(
        "![Held-out accuracy over steps; bands, where cells are few, are 95% intervals over seeds](curves.png)\n"
    )
    for table in tables:
        lines = ["| " + " | ".join(row) + " |" for row in (table.header, *table.rows)]
        lines.insert(1, "|---" * len(table.header) + "|")
        parts += [f"## {table.title}\n", table.note + "\n", "\n".join(lines) + "\n"]
    return "\n".join(parts)


def _html(about: dict[str, str], tables: Sequence[Table], picture: bytes) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = ["<h1>Report</h1><ul>"]
    body += [f"<li><b>{html.escape(key)}</b>: {html.escape(value)}</li>" for key, value in about.items()]
    encoded = base64.b64encode(picture).decode()
    body.append(f'</ul><img alt="Held-out accuracy over steps" src="data:image/png;base64,{encoded}">')
    for table in tables:
        body.append(f"<h2>{html.escape(table.title)}</h2><p>{html.escape(table.note)}</p><table>")
        body += [row(table.header, "th"), *(row(r, "td") for r in table.rows), "</table>"]
    head = f'<meta charset="utf-8"><title>{html.escape(about.get("question", "Report"))}</title><style>{STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>\n" + "\n".join(body) + "\n</body></html>\n"

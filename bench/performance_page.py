"""Makes docs/performance.md's figures and pictures from what `make bench` has left in bench/results/:

    python bench/performance_page.py

The table stands between two comments of the page; the words around it are written by hand.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "bench" / "results", ROOT / "docs" / "performance.md"
FILES = ("versus_trl", "decode_cpu", "update_cpu", "step_share", "scaling_cpu")
KEYS = {"samples": "prompts"}  # of a curve, what its points name
AXES = {"samples": "prompts (8 samples each)", "hidden": "hidden size"}
BLOCK = re.compile(r"(<!--(\w+)-->\n).*?(<!---->)", re.DOTALL)


def _range(of: dict, digits: int = 0) -> str:
    return f"{of['median']:,.{digits}f} ({of['min']:,.{digits}f} to {of['max']:,.{digits}f})"


def versus(found: dict) -> str:
    """Tokens/s of a step, ours and TRL's, as a table."""
    lines = [
        "| model | threads | gcpo_mcore, tokens/s | TRL, tokens/s | ratio | limit of the matrix products, tokens/s |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["results"]:
        own, trl = (_range(row[who]["tokens_per_s"]) for who in ("gcpo_mcore", "trl"))
        lines.append(
            f"| {row['size']} | {row['threads']} | {own} | {trl} | **{row['tokens_per_s_ratio']:.2f}** "
            f"| {row['limit_tokens_per_s']:,} |"
        )
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return "\n".join(
        [*lines, "", f"Commit {found['commit'][:7]}; {versions}; load at the end {found['load']:.1f}.", ""]
    )


def phases(found: dict) -> str:
    """Where a step's time goes, as a table."""
    names = ("sample", "sync", "grade", "deal", "score", "update")
    lines = [f"| model | threads | {' | '.join(f'{n}, s' for n in names)} | step, s |", "|---" * (len(names) + 3) + "|"]
    for row in found["results"]:
        own = row["gcpo_mcore"]["phases_s"]
        times = " | ".join(f"{own.get(name, 0.0):.3f}" for name in names)
        lines.append(f"| {row['size']} | {row['threads']} | {times} | {own['step']:.3f} |")
    return "\n".join([*lines, ""])


def engine(found: dict) -> str:
    """The embedded engine beside `generate`, as a table."""
    lines = [
        "| model | threads | engine, s | `generate`, s | faster by | by CPU seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["cases"]:
        own, other = (_range(row[who]["wall_s"], 3) for who in ("engine", "transformers"))
        wall, cpu = (_range(row["transformers"][key], 2) for key in ("engine_is_faster_by", "engine_is_faster_by_cpu"))
        lines.append(f"| {row['size']} | {row['threads']} | {own} | {other} | **{wall}** | {cpu} |")
    return "\n".join([*lines, ""])


def update(found: dict) -> str:
    """An update alone beside transformers and AdamW, as a table."""
    lines = ["| rows | threads | gcpo_mcore, s | transformers + AdamW, s | ratio |", "|---|---|---|---|---|"]
    for row in found["results"]:
        seconds = " | ".join(f"{row[f'{who}_s']:.2f}" for who in ("gcpo_mcore", "transformers"))
        lines.append(f"| {row['case']} | {row['threads']} | {seconds} | **{_range(row['ratio'], 2)}** |")
    return "\n".join([*lines, ""])


def products(found: dict) -> str:
    """What bf16 products win and cost, a line for each number of threads."""
    lines = []
    for row in filter(None, found["products"]):
        exact, rounded = (row["backward_s"][kind] for kind in ("float32", "bfloat16"))
        apart = row["logp_difference"]
        threads = f"{row['threads']} thread{'s' * (row['threads'] > 1)}"
        lines.append(
            f"- {threads}: forward and backward in {rounded:.2f} s in place of "
            f"{exact:.2f}; log-probs differ by {apart['mean']:.1e} nats in the mean, {apart['max']:.1e} at most, the "
            f"gradient by {row['gradient_relative_difference']:.1e} of its norm."
        )
    return "\n".join([*lines, ""])


def share(found: dict) -> str:
    """The framework's part of a step, as a sentence."""
    of, part = found["s"], found["framework_share"]
    return (
        f"{found['size']}, {found['threads']} thread: of a step of {of['step']:.2f} s the model has {of['model']:.2f} "
        f"s, the optimizer {of['optimizer']:.3f} s, and all else **{part['median']:.1%}** ({part['min']:.1%} to "
        f"{part['max']:.1%}).\n"
    )


def curves(found: dict) -> str:
    """Seconds of a step along each curve, as a table."""
    lines = ["| what grows | | samples | tokens | sample, s | update, s | step, s |", "|---|---|---|---|---|---|---|"]
    for name, points in found["curves"].items():
        for point in points:
            seconds = " | ".join(f"{point['phases_s'][phase]:.3f}" for phase in ("sample", "update", "step"))
            lines.append(
                f"| {name.replace('_', ' ')} | {point['at'][KEYS.get(name, name)]} | {point['samples']} "
                f"| {point['tokens']:,} | {seconds} |"
            )
    return "\n".join([*lines, "", f"Commit {found['commit'][:7]}, {found['cores']} cores.", ""])


def draw_curves(found: dict, file: Path) -> None:
    """Seconds of a step along each curve."""
    plt = _pyplot()
    figure, axes = plt.subplots(1, len(found["curves"]), figsize=(11, 3), layout="constrained", squeeze=False)
    for ax, (name, points) in zip(axes[0], found["curves"].items(), strict=True):
        x = [point["at"][KEYS.get(name, name)] for point in points]
        for phase in ("step", "update", "sample"):
            ax.plot(x, [point["phases_s"][phase] for point in points], marker="o", label=phase)
        ax.set_xlabel(AXES.get(name, name.replace("_", " ")))
        ax.set_xlim(0)
        ax.set_ylim(0)
    axes[0][0].set_ylabel("s a step")
    axes[0][0].legend(frameon=False)
    figure.savefig(file, dpi=110)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def draw(found: dict, file: Path) -> None:
    """Bars of tokens/s by size and threads."""
    plt = _pyplot()
    figure, axes = plt.subplots(1, len(found["results"]), figsize=(10, 3), layout="constrained")
    for ax, row in zip(axes, found["results"], strict=True):
        for place, (who, label) in enumerate((("gcpo_mcore", "gcpo_mcore"), ("trl", "TRL"))):
            of = row[who]["tokens_per_s"]
            error = [[of["median"] - of["min"]], [of["max"] - of["median"]]]
            ax.bar(place, of["median"], yerr=error, capsize=4, label=label)
        ax.axhline(row["limit_tokens_per_s"], linestyle=":", color="gray")
        ax.set_title(f"{row['size']}, {row['threads']} thread{'s' * (row['threads'] > 1)}")
        ax.set_xticks([0, 1], ["gcpo_mcore", "TRL"])
        ax.set_ylim(0)
    axes[0].set_ylabel("tokens/s (dotted: limit)")
    figure.savefig(file, dpi=110)


def main() -> None:
    found = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in FILES}
    trl = found["versus_trl"]
    made = {
        "versus": versus(trl),
        "phases": phases(trl),
        "engine": engine(found["decode_cpu"]),
        "update": update(found["update_cpu"]),
        "products": products(found["update_cpu"]),
        "share": share(found["step_share"]),
        "curves": curves(found["scaling_cpu"]),
    }
    PAGE.write_text(BLOCK.sub(lambda m: m[1] + made[m[2]] + m[3], PAGE.read_text()))
    draw(trl, PAGE.with_suffix(".png"))
    draw_curves(found["scaling_cpu"], PAGE.with_name("performance_curves.png"))


if __name__ == "__main__":
    main()

"""Makes docs/performance.md's figures and picture from bench/results/versus_trl.json and decode_cpu.json:

    python bench/performance_page.py

The table stands between two comments of the page; the words around it are written by hand.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "bench" / "results", ROOT / "docs" / "performance.md"
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


def draw(found: dict, file: Path) -> None:
    """Bars of tokens/s by size and threads."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

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
    found = json.loads((RESULTS / "versus_trl.json").read_text())
    made = {"versus": versus(found), "phases": phases(found)}
    PAGE.write_text(BLOCK.sub(lambda m: m[1] + made[m[2]] + m[3], PAGE.read_text()))
    draw(found, PAGE.with_suffix(".png"))


if __name__ == "__main__":
    main()

"""Finished runs as data: what each scored, over its steps and in the end."""

from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.monitor.metrics import read_metrics
from gcpo_mcore.run.folder import CONFIG, RunFolder

# What says the same in every run of a comparison, or only where it was run.
IGNORED = ("run", "prepared", "monitor", "parallel", "seed")


@dataclass(frozen=True)
class Run:
    """One run folder. curves: metric -> [(step, value)] of the held-out accuracies; totals: sums over its steps;
    cost: step -> model tokens up to its end, training alone."""

    name: str
    seed: int
    factors: dict[str, str]
    steps: int
    curves: dict[str, list[tuple[int, float]]]
    totals: dict[str, float]
    cost: dict[int, float] = field(default_factory=dict)

    def final(self, metric: str) -> float:
        return self.curves[metric][-1][1]

    def best(self, metric: str) -> float:
        return max(value for _, value in self.curves[metric])


def read_run(folder: Path, factors: dict[str, str] | None = None) -> Run:
    """A run folder with its metrics. UserError if there are none.

    factors: what the run stands for; left out, `compare_factors` finds what differs between runs.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} is no run folder: it has no {CONFIG}")
    lines = read_metrics(folder)
    names = sorted({n for line in lines for n in line if n.startswith("val/") and "/avg@" in n})
    if not names:
        raise UserError(f"{folder}: no held-out accuracy in metrics.jsonl; the report needs evaluation.every_steps > 0")
    curves = {n: [(line["step"], line[n]) for line in lines if line.get(n) is not None] for n in names}
    trained = [line for line in lines if line["step"] > 0]

    def total(name: str) -> float:
        return sum(line.get(name) or 0.0 for line in trained)

    wrong = [line["groups/all_wrong_fraction"] for line in trained]
    return Run(
        name=folder.name,
        seed=RunFolder(folder).read_config()["seed"],
        factors=factors if factors is not None else {},
        steps=lines[-1]["step"],
        curves=curves,
        totals={
            "golden injected": total("groups/golden_injected"),
            "all wrong, first": wrong[0] if wrong else 0.0,
            "all wrong, last": wrong[-1] if wrong else 0.0,
            "sampled tokens": total("rollout/tokens"),
            "model tokens": total("cost/tokens"),
            "seconds": total("time_s/step"),
        },
        cost=dict(
            zip(
                (line["step"] for line in lines),
                accumulate(line.get("cost/tokens", 0.0) for line in lines),
                strict=True,
            )
        ),
    )


def compare_factors(folders: list[Path]) -> list[dict[str, str]]:
    """The settings in which each run folder differs from the others (the seed aside)."""
    flat = [dict(_flat(RunFolder(folder).read_config())) for folder in folders]
    keys = sorted({key for settings in flat for key in settings if key.split(".")[0] not in IGNORED})
    differing = [key for key in keys if len({str(settings.get(key)) for settings in flat}) > 1]
    names = {key for key in differing if key.endswith(".name")}
    # Where a part's name differs, its other settings differ with it and say nothing new.
    told = [k for k in differing if k in names or f"{k.rpartition('.')[0]}.name" not in names]
    return [{key: str(settings.get(key)) for key in told} for settings in flat]


def _flat(node, prefix: str = ""):
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _flat(value, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), node

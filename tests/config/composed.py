"""Composed configs for the tests here; run as a script, it writes into docs/algorithms.md what stands elsewhere."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from gcpo_mcore.run.load import CONFIGS

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "algorithms.md"
BEGIN, END = "<!-- presets: python tests/config/composed.py -->\n", "<!-- end of presets -->\n"


def choices(group: str) -> list[str]:
    """The names that `group=` takes, sorted."""
    return sorted(f.stem for f in (CONFIGS / group).glob("*.yaml"))


ALGORITHMS = choices("algorithm")
PARTS = sorted(d.name for d in (CONFIGS / "algorithm").iterdir() if d.is_dir() and d.name != "__pycache__")


def composed(*overrides: str, with_hydra: bool = False) -> DictConfig:
    """What Hydra makes of this command line, not yet checked."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=list(overrides), return_hydra_config=with_hydra)


def resolved(config: DictConfig) -> dict:
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def preset_table() -> str:
    """Presets x parts in markdown: the chosen option, and its settings."""
    lines = ["| | " + " | ".join(PARTS) + " |", "|---" * (len(PARTS) + 1) + "|"]
    for name in ALGORITHMS:
        config = composed(f"algorithm={name}", with_hydra=True)
        cells = []
        for part in PARTS:
            settings = {k: v for k, v in config.algorithm[part].items() if k != "name"}
            choice = config.hydra.runtime.choices[f"algorithm/{part}"]
            cells.append(
                f"`{choice}`"
                + "".join(f"<br>{k} {'null' if v is None else str(v).lower()}" for k, v in settings.items())
            )
        lines.append(f"| **{name}** | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def run(arguments: list[str], *paths: Path) -> subprocess.CompletedProcess:
    """`python arguments` with the repository and `paths` importable."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [ROOT, *paths])), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=1200)


def write_distribution(folder: Path, name: str, entry_points: str) -> None:
    """What pip leaves of an installed package."""
    info = folder / f"{name}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(entry_points)


def said(name: str) -> str:
    """What algorithms/NAME.py says of the algorithm: equation, source, our reading."""
    return ast.get_docstring(ast.parse((ROOT / "algorithms" / f"{name}.py").read_text())) or ""


def with_what_stands_elsewhere(doc: str) -> str:
    """`doc` with the table of presets, and what each algorithm's file says between the section's title and its use."""
    before, _, rest = doc.partition(BEGIN)
    doc = before + BEGIN + preset_table() + END + rest.partition(END)[2]
    for name in ALGORITHMS:
        place = re.compile(rf"(?<=^## {name}\n\n).*?(?=^\*\*When\.\*\*)", re.M | re.S)
        doc = place.sub(lambda _, name=name: f"{said(name)}\n\n", doc, count=1)
    return doc


if __name__ == "__main__":
    DOC.write_text(with_what_stands_elsewhere(DOC.read_text()))

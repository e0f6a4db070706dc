"""Composed configs for the tests here; run as a script, it writes the table of presets into docs/algorithms.md."""

import os
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


if __name__ == "__main__":
    before, _, rest = DOC.read_text().partition(BEGIN)
    DOC.write_text(before + BEGIN + preset_table() + END + rest.partition(END)[2])
    sys.stdout.write(preset_table())

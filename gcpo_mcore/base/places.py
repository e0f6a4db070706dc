"""Where the package's own files are: at the root of a checkout, or inside what a wheel installed."""

import subprocess
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

CONFIGS = Path(str(files("gcpo_mcore.configs")))  # the Hydra groups
PACKAGE = Path(__file__).parents[1]  # the rooms
SHAPES = CONFIGS / "shapes"  # HUB/NAME/config.json of known models


def package_version() -> str:
    """The version, and in a checkout the commit: '0.1.0, commit 1a2b3c' ('0.1.0' where there is no git)."""
    commit = _commit()
    return version("gcpo-mcore") + (f", commit {commit}" if commit else "")


def _commit() -> str | None:
    root = CONFIGS.parent
    if not (root / ".git").exists():  # an installed package may lie in somebody else's repository
        return None
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True)
    except OSError:  # no git
        return None
    return done.stdout.strip() if done.returncode == 0 else None

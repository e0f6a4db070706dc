"""Where the package's own files are: at the root of a checkout, or inside what a wheel installed."""

from importlib.resources import files
from pathlib import Path

CONFIGS = Path(str(files("gcpo_mcore.configs")))  # the Hydra groups
SHAPES = CONFIGS / "shapes"  # HUB/NAME/config.json of known models

"""Files that are either whole or not there."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Replaces `path` by one with this text; a run that dies here leaves the old one. OSError as usual."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)

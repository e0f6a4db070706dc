"""Sums of what lies in a folder, whoever wrote it."""

from pathlib import Path

from gcpo_mcore.base.sums import Sum, sum_file


def sum_folder(folder: Path) -> dict[str, Sum]:
    """The sum of every file below `folder`, by its path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sum_file(path) for path in files}

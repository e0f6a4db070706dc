"""The manifest of a checkpoint: what it holds, who wrote it, and the sum of every file of it; itself summed too.

manifest.json   {"step", "architecture", "versions", "files": {path: {"bytes", "algorithm", "sum"}}}
manifest.sum    algorithm and sum of manifest.json

Older checkpoints have {path: [bytes, SHA-256]} and no manifest.sum.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.files import write_atomically
from gcpo_mcore.base.sums import ALGORITHMS, Sum, size_damage, sum_of
from gcpo_mcore.hf.architecture import Architecture

NAME, SUM_NAME = "manifest.json", "manifest.sum"
PACKAGES = ("gcpo-mcore", "megatron-core", "torch")
_HEX_DIGITS = set("0123456789abcdef")


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself. versions: of `PACKAGES`, when it was written; {} in older ones."""

    step: int
    architecture: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, Sum]


def write_manifest(checkpoint: Path, step: int, arch: Architecture, files: Mapping[str, Sum]) -> None:
    """Writes the manifest of `checkpoint`, whose files have these sums. OSError as usual.

    UserError if the folder has a file that is not among them, or not one that is, or one of another size.
    """
    there = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()}
    if stray := sorted(there - files.keys()):
        raise UserError(f"{checkpoint / stray[0]} was written by nobody")
    for name, expected in files.items():
        if problem := size_damage(checkpoint / name, expected):
            raise UserError(f"{checkpoint / name} {problem}")
    content = json.dumps(
        {
            "step": step,
            "architecture": asdict(arch),
            "versions": present_versions(),
            "files": {
                name: {"bytes": each.size, "algorithm": each.algorithm, "sum": each.digest}
                for name, each in sorted(files.items())
            },
        },
        indent=1,
    ).encode()
    own = sum_of(content)
    write_atomically(checkpoint / NAME, content)
    write_atomically(checkpoint / SUM_NAME, f"{own.algorithm} {own.digest}\n")


def present_versions() -> dict[str, str]:
    """The versions of `PACKAGES` in this process."""
    return {package: version(package) for package in PACKAGES}


@contextmanager
def named_versions(checkpoint: Path) -> Iterator[None]:
    """A scope whose UserErrors say so if other versions of `PACKAGES` wrote the checkpoint than are here."""
    try:
        yield
    except UserError as error:
        there = read_manifest(checkpoint).versions
        others = [
            f"{name} {there[name]}, here is {mine}"
            for name, mine in present_versions().items()
            if there.get(name, mine) != mine
        ]
        if not others:
            raise
        raise type(error)(f"{error}; it was written with {', '.join(others)}") from error


def read_manifest(checkpoint: Path) -> Manifest:
    """The manifest of a checkpoint. UserError, with what is wrong, if it is none or not what was written."""
    try:
        content = (checkpoint / NAME).read_bytes()
        raw = json.loads(content)
        files = {name: _sum(each) for name, each in raw["files"].items()}
        is_old = all(isinstance(each, list) for each in raw["files"].values())
        found = Manifest(int(raw["step"]), dict(raw["architecture"]), dict(raw.get("versions", {})), files)
        if not files:
            raise ValueError("it names no file")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"it has no readable {NAME} ({type(error).__name__}: {error})") from error
    if not is_old:
        _check_itself(checkpoint, content)
    return found


def _check_itself(checkpoint: Path, content: bytes) -> None:
    own = sum_of(content)
    try:
        expected = (checkpoint / SUM_NAME).read_bytes()
    except OSError:
        raise UserError(f"{SUM_NAME} is missing") from None
    if expected != f"{own.algorithm} {own.digest}\n".encode():
        raise UserError(f"{NAME} is damaged, or {SUM_NAME}")


def _sum(entry: Any) -> Sum:
    """One file's sum, of either form. ValueError, TypeError or KeyError if it is none."""
    if isinstance(entry, list):
        size, digest = entry
        found = Sum(size, digest, "sha256")
    else:
        found = Sum(entry["bytes"], entry["sum"], entry["algorithm"])
    if not isinstance(found.size, int) or found.algorithm not in ALGORITHMS or not set(found.digest) <= _HEX_DIGITS:
        raise ValueError(f"{entry} is no sum of a file")
    return found

"""Reads from the source which file imports which: every import counts, those in functions and under TYPE_CHECKING too.

What is named in a string is no import: algorithms, rewards and engines are found by name, which is how a floor below
comes to use what a floor above, or a stranger, brings.
"""

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = "gcpo_mcore"


@dataclass(frozen=True)
class Arrow:
    """One import: the line `line` of `file` imports `target`; both are paths below the root of the checkout."""

    file: Path
    line: int
    target: Path

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.target}"


def room_of(file: Path) -> str:
    """The room that a file belongs to: its folder in the package (or itself, right in it), else its folder at the root.

    gcpo_mcore/rollout/sglang/push.py -> rollout, gcpo_mcore/batch.py -> batch, rewards/numeric.py -> rewards.
    """
    inside = file.parts[1:] if file.parts[0] == PACKAGE and len(file.parts) > 1 else file.parts
    return inside[0].removesuffix(".py")


def arrows(root: Path, folders: Collection[str]) -> list[Arrow]:
    """Every import of a file of `folders` by another, in the order of the files."""
    files = sorted(p.relative_to(root) for folder in folders for p in (root / folder).rglob("*.py"))
    modules = {_dotted(file): file for file in files}
    # A wheel has algorithms/, rewards/ and configs/ inside the package, and so do imports.
    modules |= {f"{PACKAGE}.{name}": file for name, file in modules.items() if file.parts[0] != PACKAGE}
    found = []
    for file in files:
        for line, name in _imported(root / file, file):
            target = _module_of(name, modules)
            if target is not None and target != file:
                found.append(Arrow(file, line, target))
    return found


def forbidden(found: Collection[Arrow], may_import: Mapping[str, Collection[str]], why: str) -> list[str]:
    """A line for each arrow between rooms that `may_import` (room -> rooms) lacks, or from a room it does not know."""
    problems = []
    for arrow in found:
        room, target = room_of(arrow.file), room_of(arrow.target)
        if room == target:
            continue
        if room not in may_import:
            problems.append(f"{arrow}: {room} stands on no floor; give it one")
        elif target not in may_import[room]:
            allowed = ", ".join(sorted(may_import[room])) or "nothing of ours"
            problems.append(f"{arrow}: {room} may import {allowed}, not {target}. {why}")
    return problems


def circle(found: Collection[Arrow]) -> list[Path]:
    """A circle of files of the same room, its first file again at the end; [] if there is none."""
    uses: dict[Path, set[Path]] = {}
    for arrow in found:
        if room_of(arrow.file) == room_of(arrow.target):
            uses.setdefault(arrow.file, set()).add(arrow.target)
    try:
        TopologicalSorter(uses).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def _imported(path: Path, file: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that a file imports; a relative import's name is made absolute."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(file.parts[: -node.level]) if node.level else ""
            start = ".".join(part for part in (above, node.module) if part)
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def _module_of(name: str, modules: Mapping[str, Path]) -> Path | None:
    """The file of the longest beginning of a dotted name that is a module; None for what is not ours."""
    while name:
        if name in modules:
            return modules[name]
        name = name.rpartition(".")[0]
    return None


def _dotted(file: Path) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")

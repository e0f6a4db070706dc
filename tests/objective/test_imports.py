"""The objective's modules import each other one way, for the type checker's eyes too."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import gcpo_mcore.objective

PACKAGE = gcpo_mcore.objective.__name__
FOLDER = Path(gcpo_mcore.objective.__file__).parent


def imported(file: Path) -> set[str]:
    """The objective's own modules that a file imports anywhere: in functions and under TYPE_CHECKING as well."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            found |= {alias.name if (FOLDER / f"{alias.name}.py").is_file() else "__init__" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE + "."):
            found.add(node.module.removeprefix(PACKAGE + "."))
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix(PACKAGE).lstrip(".") or "__init__" for a in node.names if PACKAGE in a.name}
    return found


def test_no_circle():
    graph = {file.stem: imported(file) for file in FOLDER.glob("*.py")}
    order = list(TopologicalSorter(graph).static_order())  # CycleError names a circle
    assert order[-1] == "__init__" and graph["algorithm"] > {"golden", "surrogate"}

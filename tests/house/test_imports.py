"""One style of imports in tests/: `from tests.X import name`, and nothing from a conftest, which has fixtures only."""

import re

from tests.house.floors import arrows
from tests.launching import ROOT


def test_nobody_imports_a_conftest():
    told = [str(arrow) for arrow in arrows(ROOT, ["tests"]) if arrow.target.name == "conftest.py"]
    assert not told, "\n".join(told)


def test_a_neighbour_is_imported_by_its_whole_name():
    """Every folder is a package: what stands beside a test is not found by its bare name, nor by a dot."""
    told = []
    for path in (ROOT / "tests").rglob("*.py"):
        neighbours = {other.stem for other in path.parent.glob("*.py")}
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = re.match(r"\s*(?:from (\S+) import|import (\w+))\b", line)
            name = found and (found[1] or found[2])
            if name and (name.startswith(".") or name in neighbours):
                told.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not told, "\n".join(told)

"""Which room of the house may import which; tests/house/floors.py reads it from the imports.

A room is a folder of gcpo_mcore/ (or a module right in it), or a folder at the root. To add one, give it the lowest
floor that is above everything it needs.
"""

from pathlib import Path

import pytest

from tests.house.floors import arrows, circle, forbidden, room_of
from tests.launching import ROOT

# Lowest first. A room imports rooms of lower floors only: none of its own floor, none above.
FLOORS = [
    ("the ground: config base, registry, errors, files, platform", ["base"]),
    ("a prompt and a sample; what a Hugging Face folder and a folder of shards are", ["samples", "hf", "shards"]),
    ("a batch of samples; what a run tells; how answers are graded", ["batch", "monitor", "rewarding"]),
    ("what an update optimises, who trains, who samples, what prompts there are",
     ["objective", "actor", "rollout", "data"]),
    ("what is measured beside training; the tasks that we ship", ["evaluation", "tasks"]),
    ("one run, from the command line to its checkpoints", ["run"]),
    ("what is done with models, data, layouts, machines and run folders outside a run",
     ["convert", "curation", "inspection", "migration", "sizing", "viewing"]),
    ("grids of runs", ["ablation"]),
    ("the commands' bodies", ["commands"]),
    ("the thin entry points of a checkout", ["tools"]),
]  # fmt: skip
# What users write and read: found by name, imported by no room, and resting on as little as can be.
BESIDE_THE_FLOORS = {
    "algorithms": ["objective", "batch", "samples", "base"],
    "rewards": ["rewarding", "base"],
    "configs": [],
}
WHY = (
    "Arrows run down only, so that a room can be read, tested and changed with nothing but what is below it. Move what "
    "is shared to a lower floor, or let the upper room hand it in (tests/house/test_floors.py has the floors)."
)
FOLDERS = ["gcpo_mcore", "algorithms", "rewards", "configs", "tools"]


def may_import() -> dict[str, list[str]]:
    """Room -> the rooms that it may import."""
    below, found = [], {}
    for _, rooms in FLOORS:
        found |= {room: list(below) for room in rooms}
        below += rooms
    return found | BESIDE_THE_FLOORS


def test_arrows_run_down():
    problems = forbidden(arrows(ROOT, FOLDERS), may_import(), WHY)
    assert not problems, "\n".join(problems)


def test_every_room_stands_on_a_floor():
    """Also one that nothing is imported from yet; and no floor has a room that is gone."""
    there = {room_of(file.relative_to(ROOT)) for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")}
    assert there - {"__init__"} == may_import().keys()


def test_no_circle_in_a_room():
    found = arrows(ROOT, FOLDERS)
    circles = [circle([a for a in found if room_of(a.file) == room]) for room in may_import()]
    told = [" -> ".join(map(str, files)) for files in circles if files]
    assert not told, "files that need each other are one file, or one of them knows too much:\n" + "\n".join(told)


# --- the checker itself, on a small house ---------------------------------------------------------------------------

HOUSE = {
    "gcpo_mcore/__init__.py": "",
    "gcpo_mcore/base/__init__.py": "",
    "gcpo_mcore/base/errors.py": "import json\n",
    "gcpo_mcore/batch.py": "from gcpo_mcore.base.errors import UserError\n",
    "gcpo_mcore/actor/__init__.py": "",
    "gcpo_mcore/actor/model.py": "from gcpo_mcore import batch\nfrom gcpo_mcore.base import errors\n",
    "gcpo_mcore/actor/update.py": "from gcpo_mcore.actor import model\n",
    "rewards/exact.py": "import gcpo_mcore.base.errors\n",
}
RULES = {"base": [], "batch": ["base"], "actor": ["batch", "base"], "rewards": ["base"]}


def build(folder: Path, **changes: str) -> list:
    """The arrows of HOUSE with some files' text replaced; a file's name is written with __ for /."""
    for name, text in (HOUSE | {n.replace("__", "/") + ".py": text for n, text in changes.items()}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return arrows(folder, ["gcpo_mcore", "rewards"])


def test_a_house_in_order_has_no_problem(tmp_path):
    found = build(tmp_path)
    assert [str(a) for a in found] == [
        "gcpo_mcore/actor/model.py:1 imports gcpo_mcore/batch.py",
        "gcpo_mcore/actor/model.py:2 imports gcpo_mcore/base/errors.py",
        "gcpo_mcore/actor/update.py:1 imports gcpo_mcore/actor/model.py",
        "gcpo_mcore/batch.py:1 imports gcpo_mcore/base/errors.py",
        "rewards/exact.py:1 imports gcpo_mcore/base/errors.py",
    ]
    assert forbidden(found, RULES, "") == [] and circle(found) == []


@pytest.mark.parametrize(
    "text",
    [
        "from gcpo_mcore.actor.model import Model",
        "from gcpo_mcore.actor import model",
        "import gcpo_mcore.actor.model as m",
        "from ..actor import model",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from gcpo_mcore.actor.model import Model",
        "def f():\n    from gcpo_mcore.actor.model import Model",
    ],
)
def test_an_arrow_that_runs_up_is_told_with_its_line_and_the_reason(tmp_path, text):
    (problem,) = forbidden(build(tmp_path, gcpo_mcore__base__errors=text), RULES, "Because.")
    line = len(text.splitlines())
    assert problem == (
        f"gcpo_mcore/base/errors.py:{line} imports gcpo_mcore/actor/model.py: "
        "base may import nothing of ours, not actor. Because."
    )


def test_user_code_is_found_by_name_and_imported_by_no_room(tmp_path):
    found = build(tmp_path, gcpo_mcore__actor__model="from gcpo_mcore.rewards.exact import Exact")
    assert [p.partition(":")[0] for p in forbidden(found, RULES, "")] == ["gcpo_mcore/actor/model.py"]
    found = build(tmp_path, gcpo_mcore__actor__model="import json", rewards__exact="import gcpo_mcore.actor.model")
    assert [p.partition(":")[0] for p in forbidden(found, RULES, "")] == ["rewards/exact.py"]


def test_a_room_that_nobody_knows_is_told(tmp_path):
    (problem,) = forbidden(build(tmp_path, gcpo_mcore__utils__misc="import gcpo_mcore.batch"), RULES, "")
    assert problem.endswith("utils stands on no floor; give it one")


def test_a_circle_in_a_room_is_told(tmp_path):
    files = circle(build(tmp_path, gcpo_mcore__actor__model="def f():\n    from .update import take"))
    assert files[0] == files[-1] and {file.name for file in files} == {"model.py", "update.py"}

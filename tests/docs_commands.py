"""Do the commands in the documents name what is there: tools, options, make targets, config keys and their choices?

    python tests/docs_commands.py [DOCUMENT ...]     # a line for each that does not, and exit code 1

Text is compared with text: no import of the package, so that it is fast enough for every commit. Whether the commands
run is for tests/run/test_readme.py.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
HYDRA = {"--cfg", "--help", "--config-dir", "--info"}  # options of the commands that Hydra reads
PROGRAM = re.compile(r"(?:\./)?tools/(\w+)\.py|gcpo-([a-z]+)|gcpo_mcore\.commands\.(\w+)")
SETTING = re.compile(r"[+~]*([a-z][\w/.]*)=(.*)", re.DOTALL)
PLACEHOLDER = re.compile(r"[A-Z]|\.\.\.|[<{$|]")  # NAME, ..., ${prepared}, a|b


def documents() -> list[Path]:
    """Every document that users read."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def problems(document: Path) -> list[str]:
    """'FILE: COMMAND: what is wrong with it', for everything that is not there."""
    text = document.read_text()
    blocks = re.findall(r"^```(?:bash|sh)?\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", prose)
    return [f"{document.name}: {said}: {wrong}" for said in [*lines, *inline] for wrong in _wrong(said)]


def _wrong(said: str) -> Iterator[str]:
    try:
        words = shlex.split(said, comments=True)
    except ValueError:  # no command line: a formula, a quotation
        return
    if words[:1] == ["make"]:
        yield from (f"make has no target {w}" for w in words[1:] if "=" not in w and w not in _targets())
    places = [(i, next(filter(None, m.groups()))) for i, w in enumerate(words) if (m := PROGRAM.fullmatch(w))]
    if places:
        place, name = places[0]
        yield from _wrong_command(name, words[place + 1 :])
    elif len(words) == 1 and SETTING.fullmatch(words[0]) and _is_key(words[0]):
        yield from _wrong_setting(words[0], _choices())


def _wrong_command(name: str, words: list[str]) -> Iterator[str]:
    if PLACEHOLDER.search(name):
        return
    source = ROOT / "gcpo_mcore/commands" / f"{name}.py"
    if not source.is_file():
        yield f"there is no command {name}"
        return
    own = source.read_text()
    for option in (w.partition("=")[0] for w in words if w.startswith("--")):
        if f'"{option}"' not in own and option not in HYDRA:
            yield f"{name} has no option {option}"
    if any(w.startswith("hydra.searchpath") for w in words):
        return  # keys and choices of somebody else
    for word in words:
        found = SETTING.fullmatch(word)
        if found and f'"{found[1]}"' not in own and not found[1].startswith("submitit."):
            yield from _wrong_setting(word, _choices())


def _wrong_setting(word: str, choices: dict[str, set[str]]) -> Iterator[str]:
    found = SETTING.fullmatch(word)
    if not found or PLACEHOLDER.search(found[1]):
        return
    key, value = found[1], found[2]
    if "/" in key or key in choices:
        known = choices.get(key, set()) | (choices["ablation"] if key == "experiment" else set())
        given = [v for v in value.strip("[]").split(",") if v and not PLACEHOLDER.search(v)]
        yield from (f"{key} has no choice {v}" for v in given if v not in known)
    elif key not in _keys():
        yield f"there is no key {key}"


def _is_key(word: str) -> bool:
    """Whether a lone word is meant as a setting: its first name is one of the configuration's."""
    return re.split(r"[./=]", word.lstrip("+~"))[0] in {
        re.split(r"[./]", key)[0] for key in _keys() | _choices().keys()
    }


@cache
def _targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@cache
def _choices() -> dict[str, set[str]]:
    """Group -> its choices."""
    folders = [f for f in CONFIGS.rglob("*") if f.is_dir() and any(f.glob("*.yaml"))]
    return {f.relative_to(CONFIGS).as_posix(): {file.stem for file in f.glob("*.yaml")} for f in folders}


@cache
def _keys() -> set[str]:
    """Every key of every file of the configuration, with dots, and those above it."""
    found: set[str] = set()
    for file in CONFIGS.rglob("*.yaml"):
        group = file.relative_to(CONFIGS).parent.as_posix()
        text = file.read_text()
        package = re.search(r"^# @package (\S+)", text, flags=re.MULTILINE)
        prefix = package[1] if package else group.replace("/", ".")
        prefix = "" if prefix in ("_global_", ".") else prefix.replace("_group_", group.replace("/", ".")) + "."
        if group != "ablation":
            found |= set(_below(yaml.safe_load(text), prefix))
    return found


def _below(node: Any, prefix: str) -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{key}"
        yield from _below(value, f"{prefix}{key}.")


def main() -> int:
    """The exit code; says what is wrong."""
    found = [line for document in map(Path, sys.argv[1:] or documents()) for line in problems(document)]
    print("\n".join(found) or "the commands in the documents name what is there")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""What a user types to start a command: `python tools/NAME.py` in a checkout, `gcpo-NAME` where a wheel is installed.

Both run gcpo_mcore/commands/NAME.py. Messages and help pages name the one that this process was started by.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

_LAUNCHED = re.compile(r"(torchrun [^\n]*?)tools/(\w+)\.py")
_CALLED = re.compile(r"    (?:python tools/\w+\.py|gcpo-\w+)( |$)")
_TOOL = re.compile(r"(?:python )?tools/(\w+)\.py")


def command(called: str) -> str:
    """The words that start the command `called` ('train')."""
    return f"python tools/{called}.py" if _is_tool() else f"gcpo-{called}"


def name() -> str:
    """The name of the running program, for a usage line."""
    return Path(sys.argv[0]).name


def parser(page: str | None) -> argparse.ArgumentParser:
    """An argument parser whose help begins with `page`, a command's docstring."""
    return argparse.ArgumentParser(description=help_page(page), formatter_class=argparse.RawDescriptionHelpFormatter)


class WithDefaults(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """A form of help that has the default of each option."""


def add_command(commands: Any, name: str, page: str | None, **settings: Any) -> argparse.ArgumentParser:
    """The parser of a command's command `name` among `commands`; its help has the examples that `page`, the command's
    docstring, has of it. settings: those of `add_parser`, `help` among them."""
    about = "\n".join([f"{settings['help']}:", "", *_examples(help_page(page), name)])
    form = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    return commands.add_parser(name, description=about, **form | settings)


def _examples(page: str, name: str) -> list[str]:
    """The command lines of a page that call `name`, with the lines that go on with them."""
    found: list[str] = []
    is_mine = False
    for line in page.splitlines():
        if _CALLED.match(line):
            is_mine = f" {name} " in f"{line} ".partition("#")[0]
        elif not line.startswith("        "):
            is_mine = False
        if is_mine:
            found.append(line)
    return found


def help_page(text: str | None) -> str:
    """`text`, which names tools/NAME.py, with the commands as `command` has them."""
    page = text or ""  # python -OO has no docstrings
    if _is_tool():
        return page
    return _TOOL.sub(r"gcpo-\1", _LAUNCHED.sub(r"\1-m gcpo_mcore.commands.\2", page))


def _is_tool() -> bool:
    return Path(sys.argv[0]).resolve().parent.name == "tools"

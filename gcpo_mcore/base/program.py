"""What a user types to start a command: `python tools/NAME.py` in a checkout, `gcpo-NAME` where a wheel is installed.

Both run gcpo_mcore/commands/NAME.py. Messages and help pages name the one that this process was started by.
"""

import argparse
import re
import sys
from pathlib import Path

_LAUNCHED = re.compile(r"(torchrun [^\n]*?)tools/(\w+)\.py")
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


def help_page(text: str | None) -> str:
    """`text`, which names tools/NAME.py, with the commands as `command` has them."""
    page = text or ""  # python -OO has no docstrings
    if _is_tool():
        return page
    return _TOOL.sub(r"gcpo-\1", _LAUNCHED.sub(r"\1-m gcpo_mcore.commands.\2", page))


def _is_tool() -> bool:
    return Path(sys.argv[0]).resolve().parent.name == "tools"

"""What a user types to start a command: `python tools/NAME.py` in a checkout, `gcpo-NAME` where a wheel is installed.

Both run gcpo_mcore/commands/NAME.py. Messages and help pages name the one that this process was started by.
"""

import re
import sys
from pathlib import Path

_LAUNCHED = re.compile(r"(torchrun [^\n]*?)tools/(\w+)\.py")
_TOOL = re.compile(r"(?:python )?tools/(\w+)\.py")


def command(name: str) -> str:
    """The words that start the command `name` ('train')."""
    return f"python tools/{name}.py" if _is_tool() else f"gcpo-{name}"


def program() -> str:
    """The name of the running program, for a usage line."""
    return Path(sys.argv[0]).name


def help_page(text: str | None) -> str:
    """`text`, which names tools/NAME.py, with the commands as `command` has them."""
    page = text or ""  # python -OO has no docstrings
    if _is_tool():
        return page
    return _TOOL.sub(r"gcpo-\1", _LAUNCHED.sub(r"\1-m gcpo_mcore.commands.\2", page))


def _is_tool() -> bool:
    return Path(sys.argv[0]).resolve().parent.name == "tools"

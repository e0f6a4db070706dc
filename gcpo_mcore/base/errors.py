"""The errors that a user can mend.

`UserError` is one clear line (file, row, key, rank or phase); the tools print it without a
traceback and exit with `EXIT_CODE`. Everything else is a bug and keeps its traceback.
"""

import difflib
import json
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

EXIT_CODE = 2
_LOST_PEER = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|remote process exited|Timed out waiting \d+ms"  # of gloo and NCCL
)


class UserError(Exception):
    """Something that the user gave is wrong; `str(error)` says what and where in one line, whatever was given."""

    def __str__(self) -> str:
        return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in super().__str__())


class Stopped(BaseException):
    """A signal ends the process; `str(stopped)` says in one line how it stands.

    No Exception: it may come at any moment, and no library may take it for a failure of its own.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """The words ' (nearest: X)' for the known word closest to `word`, or '' when none is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (nearest: {found[0]})" if found else ""


def tell_torchrun(message: str) -> None:
    """Makes torchrun end with `message`, its root cause, if this process is the first of its ranks to fail."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        extra = {"py_callstack": message, "timestamp": str(int(time.time()))}
        Path(path).write_text(json.dumps({"message": {"message": message, "extraInfo": extra}}))


def lost_peer(error: Exception) -> str | None:
    """A collective's words for a rank that is gone, or does not come; None for any other error."""
    has_peers = "RANK" in os.environ
    found = _LOST_PEER.search(str(error)) if has_peers and isinstance(error, RuntimeError) else None
    return found and found[0]

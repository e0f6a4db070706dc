"""The errors that a user can mend.

`UserError` is one clear line (file, row, key, rank or phase); the tools print it without a
traceback and exit with `EXIT_CODE`. Everything else is a bug and keeps its traceback.
"""

import difflib
from collections.abc import Iterable

EXIT_CODE = 2


class UserError(Exception):
    """Something that the user gave is wrong; `str(error)` says what and where in one line."""


def nearest(word: str, known: Iterable[str]) -> str:
    """' (nearest: X)' for the known word closest to `word`, or '' when none is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (nearest: {found[0]})" if found else ""

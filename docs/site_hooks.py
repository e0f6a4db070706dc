"""What mkdocs does to a page before it renders it (mkdocs.yml): the comments that say what a figure is would, at the
beginning of a line, end the list they stand in."""

import re
from typing import Any

MARKS = re.compile(r"<!--(?:cell|change|effect) [^>]*-->|<!---->")


def on_page_markdown(markdown: str, **about: Any) -> str:
    """The page without the marks of its figures (bench/results_readme.py)."""
    return MARKS.sub("", markdown)

"""What mkdocs does to a page before it renders it (mkdocs.yml).

The comments that say what a figure is would, at the beginning of a line, end the list they stand in. Pages that are
wide tables have no list of their headings beside them.
"""

import re
from typing import Any

MARKS = re.compile(r"<!--(?:cell|change|effect) [^>]*-->|<!---->")
WIDE = {"algorithms.md", "choosing.md", "coming_from.md", "layouts.md", "metrics.md", "troubleshooting.md"}


def on_page_markdown(markdown: str, *, page: Any, **about: Any) -> str:
    """The page without the marks of its figures (bench/results_readme.py)."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    return MARKS.sub("", markdown)

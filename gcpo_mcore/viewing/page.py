"""The page: one html file with its scripts, its style and, unless a server brings them, its data."""

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Iterator, Sequence
from importlib.resources import files

from gcpo_mcore.viewing.run_files import RunFiles

SCRIPTS = ("dom", "store", "plot", "curves", "resources", "sample", "rollouts", "prompts", "main")  # in this order


def index(runs: Sequence[RunFiles], is_live: bool) -> bytes:
    """What the page reads first, compressed."""
    return gzip.compress(json.dumps({"live": is_live, "runs": [run.index() for run in runs]}).encode(), mtime=0)


def page(runs: Sequence[RunFiles], is_live: bool) -> Iterator[str]:
    """The pieces of the html file. Live: without data, which the page then asks its server for.

    All that a run has written comes as base64 of compressed json, so none of it is ever read as html; scripts and style
    are named by their sums, so nothing else could run.
    """
    script = "".join(_read(f"{name}.js") for name in SCRIPTS)
    style = _read("style.css")
    policy = (
        f"default-src 'none'; script-src '{_sum(script)}'; style-src '{_sum(style)}'; "
        f"connect-src {chr(39) + 'self' + chr(39) if is_live else chr(39) + 'none' + chr(39)}; base-uri 'none'"
    )
    title = html.escape(", ".join(run.name for run in runs))
    head, rest = _read("index.html").split("<!--data-->")
    yield head.replace("<!--policy-->", policy).replace("<!--title-->", title).replace("<!--style-->", style)
    if not is_live:
        yield _block("index", index(runs, is_live=False))
        for number, run in enumerate(runs):
            for chunk, content in enumerate(run.chunks):
                yield _block(f"chunk-{number}-{chunk}", content)
    yield rest.replace("<!--script-->", script)


def _block(name: str, content: bytes) -> str:
    return f'<script type="application/gzip" id="{name}">{base64.b64encode(content).decode()}</script>\n'


def _read(name: str) -> str:
    return files("gcpo_mcore.viewing").joinpath("page", name).read_text(encoding="utf-8")


def _sum(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

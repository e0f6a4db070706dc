"""The docs as a site: mkdocs builds them strictly, and asks nobody for anything."""

import re
import subprocess
import sys

import pytest
import yaml

from tests.launching import ROOT

CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder


def pages(nav: list) -> list[str]:
    """The files of a navigation, in its order."""
    found = []
    for entry in nav:
        for target in entry.values():
            found += pages(target) if isinstance(target, list) else [target]
    return found


def test_every_page_is_built(site):
    assert CONFIG["strict"]
    for page in pages(CONFIG["nav"]):
        built = (site / page.replace("README.md", "index.md")).with_suffix(".html").read_text()
        assert "<article" in built, page


def test_every_document_is_in_the_navigation():
    assert {f.name for f in (ROOT / "docs").glob("*.md")} <= set(pages(CONFIG["nav"]))


def test_the_pages_fetch_nothing(site):
    """Scripts, styles, fonts and pictures are the site's own; links to elsewhere are for the reader to follow."""
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert not re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=[\"']?(?:https?:)?//", text), page
        assert not re.findall(r"<link[^>]*rel=[\"']?(?:stylesheet|preconnect)[^>]*href=[\"']?(?:https?:)?//", text), (
            page
        )


def test_lists_are_lists(site):
    """A line that begins with '- ' and stayed text is a list that the renderer of the site does not see."""
    for page in site.rglob("*.html"):
        article = page.read_text().partition("<article")[2].partition("</article")[0]
        for paragraph in re.findall(r"<p>(.*?)</p>", article, re.DOTALL):
            assert not re.search(r"\n\s*(?:- |\| )", paragraph), f"{page.name}: {paragraph[:200]}"

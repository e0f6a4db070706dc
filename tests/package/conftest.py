"""One wheel for all tests here."""

from pathlib import Path

import pytest

from tests.package.building import build_wheel, copy_tree


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """A copy of what the distribution is made from."""
    folder = tmp_path_factory.mktemp("package") / "source"
    copy_tree(folder)
    return folder


@pytest.fixture(scope="session")
def wheel(source) -> Path:
    return build_wheel(source, source.parent / "wheel")

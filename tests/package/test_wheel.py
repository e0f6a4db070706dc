"""What is in the wheel and the sdist: everything that is ours, under one name, and nothing else."""

import tomllib

from tests.launching import ROOT
from tests.package.building import build_sdist, build_wheel, content

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAPPED = ("algorithms", "rewards", "configs")  # root folders that are installed inside gcpo_mcore


def ours() -> dict[str, str]:
    """Name in the wheel -> name in the tree, of every file of the package that is no by-product."""
    found = {}
    for root in ("gcpo_mcore", *MAPPED):
        for file in (ROOT / root).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                name = file.relative_to(ROOT).as_posix()
                found[f"gcpo_mcore/{name}" if root in MAPPED else name] = name
    return found


def test_the_list_of_packages_is_complete():
    modules = {name.rpartition("/")[0] for name in ours() if name.endswith(".py")}
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(m.replace("/", ".") for m in modules)


def test_the_wheel_has_every_file_and_one_top_level_name(wheel):
    files = content(wheel)
    info = f"gcpo_mcore-{PROJECT['project']['version']}.dist-info"
    assert {name.partition("/")[0] for name in files} == {"gcpo_mcore", info}
    packaged = {name: text for name, text in files.items() if not name.startswith(info)}
    assert packaged == {name: (ROOT / path).read_bytes() for name, path in ours().items()}
    assert files[f"{info}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert f"{info}/licenses/NOTICE" in files


def test_the_wheel_is_for_any_platform_and_says_what_it_is(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")
    files = content(wheel)
    (metadata,) = (text.decode() for name, text in files.items() if name.endswith("/METADATA"))
    assert "\nLicense-Expression: Apache-2.0\n" in metadata and "\nRequires-Python: >=3.11\n" in metadata
    assert "torch" in metadata and "Provides-Extra: sglang" in metadata
    (scripts,) = (text.decode() for name, text in files.items() if name.endswith("/entry_points.txt"))
    for name in sorted(f.stem for f in (ROOT / "gcpo_mcore/commands").glob("[a-z]*.py")):
        assert f"gcpo-{name} = gcpo_mcore.commands.{name}:main\n" in scripts
        assert (ROOT / f"tools/{name}.py").is_file()


def test_the_sdist_builds_the_same_wheel(source, wheel, tmp_path):
    sdist = build_sdist(source, tmp_path / "sdist")
    names = {name.partition("/")[2] for name in content(sdist)}
    assert {"LICENSE", "NOTICE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "README.md"} <= names
    assert content(build_wheel(sdist, tmp_path / "wheel")) == content(wheel)

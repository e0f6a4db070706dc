"""The files about the project agree with each other, and those that other programs read are of their form."""

import re
import tomllib

import pytest
import yaml

from tests.launching import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text())


def test_one_version_everywhere():
    assert read("CITATION.cff")["version"] == VERSION
    released = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert released[0] == VERSION


def test_the_changelog_is_kept():
    """Keep a Changelog's form: what is not yet released comes first, each section under one of six words."""
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert sections[0] == "[Unreleased]" and all(re.fullmatch(r"\[\d+\.\d+\.\d+\].*", s) for s in sections[1:])
    kinds = set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE))
    assert kinds and kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_license_is_whole():
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text and "APPENDIX" in text
    assert read("CITATION.cff")["license"] == "Apache-2.0"


def test_the_workflow_runs_what_ci_runs():
    steps = read(".github/workflows/ci.yml")["jobs"]["all"]["steps"]
    assert any(step.get("run") == ".ci/run" for step in steps)
    (python,) = [step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", "")]
    assert python == "3.11" and (ROOT / ".ci/run").stat().st_mode & 0o100


def test_hooks_of_pre_commit_start_what_is_there():
    (local,) = read(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    makes = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    for hook in local["hooks"]:
        program, *words = hook["entry"].split()
        if program == ".venv/bin/python":
            assert (ROOT / words[0]).is_file()
        else:  # what `make lint` runs
            assert program.replace(".venv", "$(VENV)") in makes, hook["entry"]


@pytest.mark.parametrize("file", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[a-z]*_*.yml")), ids=lambda f: f.name)
def test_issue_forms(file):
    """GitHub's form schema: a name, a description, and a body of parts with ids of their own."""
    form = yaml.safe_load(file.read_text())
    assert form["name"] and form["description"]
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 0
    for part in form["body"]:
        assert part["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert part["attributes"].get("label") or part["attributes"].get("value")

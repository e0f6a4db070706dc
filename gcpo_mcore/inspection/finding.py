"""What an inspection finds: a line each, with what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is: a problem stops a run or makes it wrong, a warning may cost time or room."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """`subject` is what was looked at, `found` what there is, `remedy` what to do about it (none if it is well)."""

    level: Level
    subject: str
    found: str
    remedy: str = ""


def ok(subject: str, found: str) -> Finding:
    """A finding that is well."""
    return Finding(Level.OK, subject, found)


def told(findings: Iterable[Finding]) -> list[str]:
    """A line for each finding, and one for its remedy."""
    lines = []
    for one in findings:
        lines.append(f"{one.level.value:<8} {one.subject}: {one.found}")
        if one.remedy:
            lines.append(f"{'':<8}   -> {one.remedy}")
    return lines


def exit_code(findings: Iterable[Finding]) -> int:
    """0 if there is no problem, else 1; warnings do not count."""
    return int(any(one.level is Level.PROBLEM for one in findings))

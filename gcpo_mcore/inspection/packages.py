"""Python and the packages that a run needs: whether they are there in versions that go together."""

import platform as python
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from gcpo_mcore.inspection.finding import Finding, Level, ok
from gcpo_mcore.rollout.sglang.pairs import KNOWN

NAMED = ("torch", "megatron-core", "transformers")  # said even when they are well
OPTIONAL = {
    "transformer-engine": "actor.backend=te",
    "sglang": "rollout=sglang, in this environment (rollout.python names another)",
}


def installed(name: str) -> str | None:
    """The version of a distribution here; None if there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def look() -> Iterator[Finding]:
    """Findings about Python and packages."""
    yield ok("python", f"{python.python_version()} at {sys.executable}")
    needed = [Requirement(line) for line in requires("gcpo-mcore") or []]
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    yield from judge_needed(needed, {one.name: installed(one.name) for one in needed})
    there = {name: installed(name) for name in OPTIONAL}
    yield from (ok(name, f"{found}, for {OPTIONAL[name]}") for name, found in there.items() if found)
    yield from (
        Finding(Level.NOTE, name, f"not installed: needed for {OPTIONAL[name]} only")
        for name, found in there.items()
        if not found
    )
    yield judge_pair(installed("torch"), there["sglang"])


def judge_needed(needed: list[Requirement], found: Mapping[str, str | None]) -> Iterator[Finding]:
    """Findings about what pyproject.toml asks for, from the versions that are installed."""
    bad = False
    for one in needed:
        here = found[one.name]
        is_good = here is not None and one.specifier.contains(here, prereleases=True)
        bad |= not is_good
        if not is_good:
            words = f"{here or 'not installed'}, needed is {one.specifier}"
            yield Finding(Level.PROBLEM, one.name, words, f"pip install '{one.name}{one.specifier}'")
        elif one.name in NAMED:
            yield ok(one.name, str(here))
    if not bad:
        yield ok("packages", f"all {len(needed)} that a run needs, in versions that it was tested with")


def judge_pair(torch: str | None, sglang: str | None) -> Finding:
    """What the trainer's torch and an SGLang can hand weights over by (docs/rollout.md)."""
    ours = next((one for one in KNOWN if (torch or "").startswith(one.release + ".")), None)
    if ours is None:
        pairs = ", ".join(f"torch {one.release} with {one.servers}" for one in KNOWN)
        return Finding(Level.WARNING, "torch and SGLang", f"torch {torch} is in no known pair", f"known: {pairs}")
    if sglang is None:
        return ok("torch and SGLang", f"torch {ours.release} goes with {ours.servers} by every transport")
    release = tuple(int(part) for part in sglang.split(".")[:3] if part.isdigit())
    if ours.first <= release <= ours.last:
        return ok("torch and SGLang", f"torch {ours.release} and SGLang {sglang} go together by every transport")
    return Finding(
        Level.WARNING, "torch and SGLang",
        f"torch {ours.release} and SGLang {sglang}, which brings another torch and NCCL",
        f"take {ours.servers}, or rollout.transport=disk",
    )  # fmt: skip

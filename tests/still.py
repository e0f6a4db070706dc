"""A process that stands still at a given moment, so that no test has to be quick enough to meet it."""

import os
from pathlib import Path


class Standstill:
    """Whoever has `environment` stands still before it opens (at="open") or renames (at="os.rename") a path with `word`
    in it, until `end`, each at its `count`-th. Python's audit events tell when (tests/standstill/sitecustomize.py)."""

    def __init__(self, folder: Path, at: str, word: str, count: int = 1):
        self._flag, self._at, self._word, self._count = folder / "stand_still", at, word, count
        self._flag.touch()

    def environment(self, base: dict[str, str]) -> dict[str, str]:
        """`base` with what the process needs to know."""
        path = os.pathsep.join([str(Path(__file__).with_name("standstill")), base.get("PYTHONPATH", "")])
        told = {"STAND_STILL_AT": self._at, "STAND_STILL_WORD": self._word, "STAND_STILL_FLAG": str(self._flag)}
        told["STAND_STILL_COUNT"] = str(self._count)
        return base | told | {"PYTHONPATH": path}

    def is_met(self) -> bool:
        """Whether a process stands there, or stood since `again`."""
        return self._met.exists()

    def again(self) -> None:
        """Forgets who stood there."""
        self._met.unlink()

    def is_waiting(self) -> bool:
        """Whether who comes there has to wait: until `end`."""
        return self._flag.exists()

    def end(self) -> None:
        """Lets everybody go on, now and later."""
        self._flag.unlink()

    @property
    def _met(self) -> Path:
        return self._flag.with_name(f"{self._flag.name}_met")

"""The numbers of a run: metrics.jsonl, one line per step."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.files import naming, write_atomically

FILE = "metrics.jsonl"


class MetricsLog:
    """Writer of a run folder, one (rank 0): `MetricsLog(folder).write(step, {'reward/mean': 0.5})`.

    A line is {"step": int, "time_unix_s": float, name: number or null, ...}; null stands for nan
    and infinity, which json does not have.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.path = self.folder / FILE
        self.folder.mkdir(parents=True, exist_ok=True)
        self._cut_torn_line()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends the metrics of a step; they are in the file when this returns."""
        numbers = {name: float(value) for name, value in metrics.items()}
        line = {"step": step, "time_unix_s": time.time()}
        line |= {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        with naming(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def truncate_after(self, step: int) -> None:
        """Forgets the steps after `step`: a resumed run takes them again, and none may count twice."""
        kept = [line for line in read_metrics(self.folder) if line["step"] <= step]
        if self.path.exists():
            write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def _cut_torn_line(self) -> None:
        """Drops a last line that a killed run did not finish, so that the next does not grow onto it."""
        if self.path.exists():
            with naming(self.path):
                content = self.path.read_bytes()
                if content and not content.endswith(b"\n"):
                    with open(self.path, "rb+") as file:
                        file.truncate(content.rfind(b"\n") + 1)


def read_metrics(folder: Path | str) -> list[dict]:
    """The lines of metrics.jsonl, oldest first; [] if there are none.

    An unfinished last line is left out. UserError for any other line that is no step's.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return []
    with naming(path):
        *lines, _unfinished = path.read_bytes().split(b"\n")
    return [_line(path, number, line) for number, line in enumerate(lines, start=1)]


def _line(path: Path, number: int, content: bytes) -> dict:
    try:
        line = json.loads(content)
        if not (isinstance(line, dict) and isinstance(line.get("step"), int)):
            raise ValueError("it has no step")
        return line
    except ValueError as error:  # of json, and of what is not UTF-8
        raise UserError(
            f"{path}, line {number}: not a step's metrics ({error}); a copy of the file without that line is good"
        ) from error

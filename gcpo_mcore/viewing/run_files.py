"""What run folders have to show, in the form in which a page takes it: an index, and samples in compressed chunks.

The index has a few numbers of every sample, column by column, so that a browser can filter 100,000 of them; their text
is in the chunks, of which it unpacks those that are looked at.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.monitor.metrics import FILE as METRICS
from gcpo_mcore.monitor.metrics import read_metrics
from gcpo_mcore.monitor.records import FOLDER, TOKEN_VALUES

CONFIG = "config.yaml"
SAMPLES_PER_CHUNK = 250
FLAGS = ("is_accurate", "is_golden", "truncated", "grading_failed", "token_values", "token_versions", "guided_tokens")
ABOUT = {"algorithm": "algorithm.name", "model": "model.path", "seed": "seed", "steps": "trainer.steps"}
COLUMNS = ("step", "group", "prompt", "source", "index", "reward", "advantage", "tokens", "version", "flags")


class RunFiles:
    """One run folder. `refresh` reads what is new in it.

    samples  at most about so many are shown; a run with more shows every second, third, ... step's
    """

    def __init__(self, folder: Path, samples: int):
        if not any((folder / name).is_file() for name in (METRICS, CONFIG)):
            raise UserError(f"{folder}: no run folder (it has neither {METRICS} nor {CONFIG})")
        self.folder, self.samples = folder, samples
        self.name = folder.resolve().name
        self.metrics: dict[str, list[Any]] = {}
        self.chunks: list[bytes] = []
        self.generation = 0
        self._counts: dict[tuple[int, int], int] = {}  # step and time of its file -> samples
        self._forget(every=1)

    def refresh(self) -> bool:
        """Reads metrics and the steps that are new; whether there was anything."""
        lines = read_metrics(self.folder)
        names = sorted({"step", "time_unix_s"} | {name for line in lines for name in line})
        metrics = {name: [line.get(name) for line in lines] for name in names}
        is_new, self.metrics = metrics != self.metrics, metrics
        files = self._files(max((line["step"] for line in lines), default=0))
        stamps = {step: path.stat().st_mtime_ns for step, path in files.items()}
        every = self._every(files, stamps)
        if every != self.every or any(stamps.get(step) != stamp for step, stamp in self._shown.items()):
            self._forget(every)  # written anew after a resume, or more than is to be shown
        for step in [step for step in files if step % every == 0 and step not in self._shown]:
            self._shown[step] = stamps[step]
            self._add(step, files[step])
            is_new = True
        return is_new

    def index(self) -> dict[str, Any]:
        """What the page knows of the run without its chunks: plain json values."""
        return {
            "name": self.name,
            "about": self._about(),
            "metrics": self.metrics,
            "every": self.every,
            "generation": self.generation,
            "columns": self._columns,
            "prompts": list(self._prompts),
            "sources": list(self._sources),
            "chunks": self._first_rows,
        }

    def _forget(self, every: int) -> None:
        self.every = every
        self.generation += 1  # chunks that a browser has are not these
        self.chunks.clear()
        self._first_rows: list[int] = []
        self._columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        self._prompts: dict[str, int] = {}
        self._sources: dict[str, int] = {}
        self._shown: dict[int, int] = {}  # step -> time of its file

    def _files(self, last_step: int) -> dict[int, Path]:
        """The files of the steps that count, in order: a resumed run takes those behind `last_step` again."""
        found = {int(path.stem.removeprefix("step_")): path for path in (self.folder / FOLDER).glob("step_*.jsonl")}
        return {step: found[step] for step in sorted(found) if step <= last_step}

    def _every(self, files: dict[int, Path], stamps: dict[int, int]) -> int:
        """Of which number of steps one is shown."""
        if not self.samples:
            return 1
        for step in files:
            if (step, stamps[step]) not in self._counts:
                self._counts[step, stamps[step]] = files[step].read_bytes().count(b"\n")
        return max(1, -(-sum(self._counts[step, stamps[step]] for step in files) // self.samples))

    def _about(self) -> dict[str, str]:
        path = self.folder / CONFIG
        config = OmegaConf.load(path) if path.is_file() else OmegaConf.create()
        found = {name: OmegaConf.select(config, key) for name, key in ABOUT.items()}
        return {name: str(value) for name, value in found.items() if value is not None}

    def _add(self, step: int, path: Path) -> None:
        values = {line.pop("row"): line for line in _lines(self.folder / TOKEN_VALUES / path.name)}
        group, last = -1, ("", 0)
        records = []
        for row, record in enumerate(_lines(path)):
            place = (record["prompt_id"], record["index"])
            group += place[0] != last[0] or place[1] <= last[1]  # a group's samples stand together, in order
            last = place
            if row in values:
                record["token_values"] = values[row]
            self._index(record, step, group)
            records.append(record)
        for first in range(0, len(records), SAMPLES_PER_CHUNK):
            self._first_rows.append(len(self._columns["step"]) - len(records) + first)
            text = json.dumps(records[first : first + SAMPLES_PER_CHUNK])
            self.chunks.append(gzip.compress(text.encode(), compresslevel=6, mtime=0))

    def _index(self, record: dict[str, Any], step: int, group: int) -> None:
        row = (
            step,
            group,
            self._prompts.setdefault(record["prompt_id"], len(self._prompts)),
            self._sources.setdefault(record["source"], len(self._sources)),
            record["index"],
            _short(record["reward"]),
            _short(record["advantage"]),
            record["tokens"],
            record["weight_version"],
            sum(1 << bit for bit, name in enumerate(FLAGS) if record.get(name)),
        )
        for name, value in zip(COLUMNS, row, strict=True):
            self._columns[name].append(value)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The json lines of a file; none if it is not there. UserError for a line that is no record."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not json ({error})") from error


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

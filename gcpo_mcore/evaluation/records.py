"""One jsonl file per model and benchmark: a line of settings, then a line per problem. A killed call goes on there."""

import json
import os
from pathlib import Path
from typing import Any

from gcpo_mcore.base.config import flat
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.files import naming


class Records:
    """The file at `path`, made with `settings` or refused if it was made with others.

    done    the finished problems by id
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path = path
        self.done: dict[str, dict[str, Any]] = {}
        if path.is_file():
            self._read(settings)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append([settings])

    def add(self, records: list[dict[str, Any]]) -> None:
        """Writes finished problems, each with its 'id', to disk."""
        self._append(records)
        self.done |= {record["id"]: record for record in records}

    def _read(self, settings: dict[str, Any]) -> None:
        lines = self.path.read_bytes().split(b"\n")
        whole, rest = lines[:-1], lines[-1]  # a call that was killed may leave half a line
        if not whole:
            self.path.write_bytes(b"")
            return self._append([settings])
        before = dict(flat(json.loads(whole[0])))
        for key, value in flat(settings):
            if before.get(key) != value:
                old, new = _short(before.get(key)), _short(value)
                raise UserError(
                    f"{self.path} was made with another {key} ({old}, now {new}); "
                    "choose another evaluation.folder, or remove the file"
                )
        self.done = {record["id"]: record for record in map(json.loads, whole[1:])}
        if rest:
            with open(self.path, "r+b") as file:
                file.truncate(self.path.stat().st_size - len(rest))

    def _append(self, records: list[dict[str, Any]]) -> None:
        with naming(self.path), open(self.path, "ab") as file:
            file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())
            file.flush()
            os.fsync(file.fileno())


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."

"""Prompts that were made once and lie in Arrow files, mapped into the memory of every process that wants them.

    FOLDER/part-00000.arrow   the prompts of the rows 0 to 16,383, without those that were left out as overlong
    FOLDER/order-NAME.npy     the order of an epoch, [n] int64
    FOLDER/prepared.json      the counts; it is there when all parts are

The columns of a row may hold whatever a parquet file or a data set does, so they are pickled: whoever can write into
such a folder can run code in the processes that read it. It is made for its owner alone.
"""

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from gcpo_mcore.data.prompts import Number, Prompts, digests
from gcpo_mcore.samples import Prompt

if TYPE_CHECKING:  # slow to import
    import pyarrow as pa

META = "prepared.json"
ORDERS_KEPT = 16  # the newest so many of a folder


def part_file(folder: Path, part: int) -> Path:
    """Where the prompts of a part are."""
    return folder / f"part-{part:05}.arrow"


def read_parts(folder: Path, parts: int) -> "pa.Table":
    """All prompts of a folder as one table, of which memory holds what is looked at."""
    import pyarrow as pa

    files = [part_file(folder, part) for part in range(parts)]
    return pa.concat_tables([pa.ipc.open_file(pa.memory_map(str(file))).read_all() for file in files])


class Prepared(Prompts):
    """The prompts of a complete folder; from place `max_golden_rows` on (None: nowhere) without their golden answer."""

    def __init__(self, folder: Path, source: str, max_golden_rows: int | None):
        self.folder, self.source = folder, source
        self.meta: dict[str, Any] = json.loads((folder / META).read_text())
        self._table = read_parts(folder, self.meta["parts"])
        self._golden_end = len(self) if max_golden_rows is None else max_golden_rows

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, place: int) -> Prompt:
        place = range(len(self))[place]
        answer, *others = self._at("answers", place)
        has_golden = place < self._golden_end
        return Prompt(
            f"{self.source}:{self._at('number', place)}",
            self.source,
            self._at("text", place),
            self._at("token_ids", place),
            answer,
            self._at("golden_ids", place) if has_golden else None,
            self._at("golden_text", place) if has_golden else None,
            pickle.loads(self._at("columns", place)),
            tuple(others),
        )

    def _at(self, column: str, place: int) -> Any:
        return self._table.column(column)[place].as_py()

    @property
    def fingerprint(self) -> str:
        """See `Prompts`."""
        return self.meta["fingerprint"]

    def digests(self) -> dict[str, str]:
        """See `Prompts`."""
        golden = self._table.column("golden_digest").to_numpy().copy()
        golden[self._golden_end :] = 0
        return digests(self.fingerprint, golden, self._table.column("columns_digest").to_numpy())

    def golden_tokens(self) -> np.ndarray:
        """See `Prompts`."""
        import pyarrow.compute as pc

        lengths = pc.call_function("list_value_length", [self._table.column("golden_ids")])  # made when pyarrow loads
        tokens = pc.fill_null(lengths, 0).to_numpy().copy()
        tokens[self._golden_end :] = 0
        return tokens

    def numbers(self, read: Number) -> np.ndarray:
        """See `Prompts`: as they were made when the prompts were."""
        return self._table.column("curriculum").to_numpy()

    def by_id(self, ids: Collection[str]) -> dict[str, Prompt]:
        """See `Prompts`."""
        split = [one.rpartition(":") for one in ids]
        rows = np.array([int(row) for source, _, row in split if source == self.source], np.int64)
        places = np.searchsorted(self._row_numbers, rows)
        found = [self[int(place)] for place in places if place < len(self)]
        return {prompt.id: prompt for prompt in found if prompt.id in ids}

    @cached_property
    def _row_numbers(self) -> np.ndarray:
        return self._table.column("number").to_numpy()

    def order(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """See `Prompts`: kept in a file, which all processes map into their memory."""
        digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        file = self.folder / f"order-{digest}.npy"
        with FileLock(self.folder / "orders.lock"):
            if not file.exists():
                new = file.with_name(f".{file.stem}.new.npy")
                np.save(new, np.asarray(make(), np.int64))
                os.replace(new, file)
                self._drop_old_orders()
            return np.load(file, mmap_mode="r")

    def _drop_old_orders(self) -> None:
        """What is mapped stays with those who have it."""
        files = sorted(self.folder.glob("order-*.npy"), key=lambda file: file.stat().st_mtime_ns)
        for file in files[:-ORDERS_KEPT]:
            file.unlink()

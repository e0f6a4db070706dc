"""Makes the prompts of a source once, by all processes that want them together: each takes parts that nobody has.

A part is whole or not there, and a lock goes with the process that holds it: who dies leaves its part to the others.
"""

import itertools
import json
import logging
import os
import pickle
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.files import write_atomically
from gcpo_mcore.data.files import Row
from gcpo_mcore.data.prepared import META, part_file, read_parts
from gcpo_mcore.data.prompts import columns_digest, digest_of, golden_digest, row_digest
from gcpo_mcore.data.sound import said
from gcpo_mcore.samples import Prompt

if TYPE_CHECKING:  # slow to import
    import pyarrow as pa

log = logging.getLogger(__name__)
ROWS_PER_PART = 16_384
ROWS_PER_BATCH = 4_096  # in memory at a time
SAYS_EVERY_S = 30.0

Unread = Callable[[], Row]  # what reads a row


@dataclass(frozen=True)
class Made:
    """A prompt, with the number of its row and the one that a curriculum goes by."""

    prompt: Prompt
    row: int
    number: float | None


Make = Callable[[Row], Made | None]  # None: the row is left out


def prepare(folder: Path, rows: Callable[[], Iterable[Unread]], make: Make, shape: Callable[[], str]) -> None:
    """Fills `folder`, unless it is complete. `rows` begins a source anew, `make` may refuse a row with a UserError.

    Any number of processes may call it at once, with the same arguments; each returns when the folder is complete.
    """
    with _own_folder(folder):
        if (folder / META).exists():
            return
        count = _work(folder, rows(), make)
        while missing := [part for part in range(_parts(count)) if not part_file(folder, part).exists()]:
            _wait_for(folder, missing[0])
            if not part_file(folder, missing[0]).exists():  # who had it is gone
                _work(folder, rows(), make)
        with FileLock(folder / "prepared.lock"):
            _write_meta(folder, count, shape())


def _parts(rows: int) -> int:
    return -(-rows // ROWS_PER_PART)


@contextmanager
def _own_folder(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.getuid():
            raise UserError(f"{folder}: it is another user's; data.cache.folder names a place of your own")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):  # its columns are pickled
            raise UserError(f"{folder}: others may write into it; remove it, and it is made for you alone")
        yield
    except (OSError, NotImplementedError) as error:  # no right, no room, a file system without locks
        raise UserError(f"{folder}: prompts cannot be prepared there ({said(error)}); see data.cache.folder") from None


def _work(folder: Path, rows: Iterable[Unread], make: Make) -> int:
    """Makes every part that is not there and that nobody else is making. Returns how many rows there are."""
    count = 0

    def counted() -> Iterator[tuple[int, Unread]]:
        nonlocal count
        for read in rows:
            yield count, read
            count += 1

    for part, members in itertools.groupby(counted(), key=lambda row: row[0] // ROWS_PER_PART):
        if part_file(folder, part).exists():
            continue
        with _claim(folder, part) as is_mine:
            if is_mine and not part_file(folder, part).exists():
                _write_part(folder, part, (made for _, read in members if (made := make(read())) is not None))
    return count


def _lock(folder: Path, part: int) -> FileLock:
    return FileLock(part_file(folder, part).with_suffix(".lock"))


@contextmanager
def _claim(folder: Path, part: int) -> Iterator[bool]:
    lock = _lock(folder, part)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _wait_for(folder: Path, part: int) -> None:
    """Returns when nobody is making the part."""
    while True:
        try:
            with _lock(folder, part).acquire(timeout=SAYS_EVERY_S):
                return
        except Timeout:
            log.warning("waiting for another process that makes %s", part_file(folder, part))


def _write_part(folder: Path, part: int, made: Iterator[Made]) -> None:
    import pyarrow as pa

    schema = _schema()
    new = folder / f".part-{part:05}.new"
    with open(new, "wb") as file:
        with pa.ipc.new_file(file, schema) as writer:
            while some := list(itertools.islice(made, ROWS_PER_BATCH)):
                writer.write_batch(_batch(some, schema))
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, part_file(folder, part))


def _schema() -> "pa.Schema":
    import pyarrow as pa

    tokens = pa.large_list(pa.int32())
    return pa.schema(
        [
            ("number", pa.int64()),
            ("text", pa.large_string()),
            ("token_ids", tokens),
            ("answers", pa.large_list(pa.large_string())),
            ("golden_text", pa.large_string()),
            ("golden_ids", tokens),
            ("columns", pa.large_binary()),
            ("curriculum", pa.float64()),
            ("digest", pa.uint64()),
            ("golden_digest", pa.uint64()),
            ("columns_digest", pa.uint64()),
        ]
    )


def _batch(made: list[Made], schema: "pa.Schema") -> "pa.RecordBatch":
    import pyarrow as pa

    prompts = [one.prompt for one in made]
    columns: dict[str, list[Any]] = {
        "number": [one.row for one in made],
        "text": [p.text for p in prompts],
        "token_ids": [p.token_ids for p in prompts],
        "answers": [[p.answer, *p.other_answers] for p in prompts],
        "golden_text": [p.golden_text for p in prompts],
        "golden_ids": [p.golden_ids for p in prompts],
        "columns": [pickle.dumps(p.columns, pickle.HIGHEST_PROTOCOL) for p in prompts],
        "curriculum": [one.number for one in made],
        "digest": [row_digest(p) for p in prompts],
        "golden_digest": [golden_digest(p) for p in prompts],
        "columns_digest": [columns_digest(p) for p in prompts],
    }
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def _write_meta(folder: Path, rows: int, shape: str) -> None:
    if (folder / META).exists():
        return
    parts = _parts(rows)
    table = read_parts(folder, parts)
    meta = {
        "shape": shape,
        "rows": rows,
        "prompts": table.num_rows,
        "parts": parts,
        "fingerprint": digest_of(table.column("digest").to_numpy()),
    }
    write_atomically(folder / META, json.dumps(meta, indent=1) + "\n")

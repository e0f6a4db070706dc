"""The rows of a file, of a folder of files, or of a Hugging Face data set, each with the place where it stands.

jsonl and csv are located by their line, from 1, as editors count; json, parquet and Hugging Face rows by their number,
from 0, as pandas and pyarrow count. Every complaint is a `UserError` of one line with that place.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from gcpo_mcore.base.errors import UserError, nearest

Located = tuple[str, dict[str, Any]]  # where, values by column
HUB = "hf:"
HUB_OPTIONS = ("config", "split", "revision")
MAX_CSV_FIELD_CHARS = 2**31 - 1


def located_rows(path: str) -> Iterator[Located]:
    """Every row of `path`, lazily: a file by its ending, a folder's files in the order of their names, or hf:NAME."""
    if path.startswith(HUB):
        yield from _read_hub(path)
    elif Path(path).is_dir():
        for file in _files_of(path):
            yield from READERS[file.suffix](str(file))
    elif Path(path).is_file():
        ending = Path(path).suffix
        if ending not in READERS:
            raise UserError(f"{path}: unknown ending '{ending}'; known: {', '.join(READERS)}")
        yield from READERS[ending](path)
    else:
        raise UserError(f"{path}: there is no such file or folder")


def _files_of(folder: str) -> list[Path]:
    """The data files that lie in the folder itself, not below it: there, another split may lie."""
    files = sorted(p for p in Path(folder).iterdir() if p.suffix in READERS and not p.name.startswith("."))
    if not files:
        raise UserError(f"{folder}: the folder has no file that ends in {', '.join(READERS)}")
    return files


def _read_jsonl(path: str) -> Iterator[Located]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                values = json.loads(line.decode("utf-8-sig"))
            except json.JSONDecodeError as error:
                raise UserError(f"{where}: not valid JSON: {error.msg} at character {error.pos + 1}") from None
            except UnicodeDecodeError as error:
                raise UserError(f"{where}: not UTF-8 at byte {error.start + 1}") from None
            yield where, _object(values, where)


def _read_json(path: str) -> Iterator[Located]:
    """A list of objects, or an object in which exactly one value is such a list."""
    try:
        content = json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: not valid JSON: {error.msg} at line {error.lineno}, character {error.colno}"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start + 1}") from None
    if isinstance(content, dict):
        lists = {key: value for key, value in content.items() if isinstance(value, list)}
        if len(lists) != 1:
            raise UserError(f"{path}: an object has to hold one list of rows, this one holds {len(lists)}")
        (content,) = lists.values()
    if not isinstance(content, list):
        raise UserError(f"{path}: not a list of rows but {type(content).__name__}")
    for number, values in enumerate(content):
        where = f"{path}, row {number}"
        yield where, _object(values, where)


def _read_csv(path: str) -> Iterator[Located]:
    """The first line names the columns; every value is text, and an empty one is null."""
    csv.field_size_limit(MAX_CSV_FIELD_CHARS)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if repeated := {name for name in header if header.count(name) > 1}:
                raise UserError(f"{path}, line 1: the column '{min(repeated)}' is there twice")
            line = reader.line_num + 1
            for fields in reader:
                where = f"{path}, line {line}"
                if fields and len(fields) != len(header):
                    raise UserError(f"{where}: {len(fields)} fields, the header has {len(header)}")
                if fields:
                    yield where, {name: value or None for name, value in zip(header, fields, strict=True)}
                line = reader.line_num + 1  # a value may have several lines: the row is where it begins
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 near byte {error.start + 1}") from None
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not valid csv: {error}") from None


def _read_parquet(path: str) -> Iterator[Located]:
    import pyarrow  # slow to import, and a run on jsonl does not need it
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    yield f"{path}, row {number}", values
                    number += 1
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file: {' '.join(str(error).split())}") from None


def _read_hub(path: str) -> Iterator[Located]:
    """Rows of hf:NAME?split=train[&config=main][&revision=TAG]; NAME may be a folder of files as well."""
    name, _, query = path.removeprefix(HUB).partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    for key in given:
        if key not in HUB_OPTIONS:
            raise UserError(
                f"{path}: unknown option '{key}'{nearest(key, HUB_OPTIONS)}; known: {', '.join(HUB_OPTIONS)}"
            )
    if not (name and given.get("split")):
        raise UserError(f"{path}: it has to be hf:NAME?split=train, with &config=... if the data set has several")
    try:
        import datasets
    except ImportError:
        raise UserError(f"{path}: needs the package 'datasets' (pip install 'gcpo-mcore[hub]')") from None
    try:
        found = datasets.load_dataset(
            name, given.get("config"), split=given["split"], revision=given.get("revision"), streaming=False
        )
    except Exception as error:  # the library raises a dozen kinds: no network, no such name, split or config
        raise UserError(f"{path}: {' '.join(f'{type(error).__name__}: {error}'.split())[:400]}") from None
    for number, values in enumerate(found):
        yield f"{path}, row {number}", dict(values)


def _object(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"{where}: not a JSON object but {type(values).__name__}")
    return values


READERS = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}

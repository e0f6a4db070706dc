"""The rows of a file, of a folder of files, or of a Hugging Face data set, each with the place where it stands.

jsonl and csv are located by their line, from 1, as editors count; json, parquet and Hugging Face rows by their number,
from 0, as pandas and pyarrow count. Its values are made when they are asked for, so that rows can be passed over
quickly. A row that cannot be read is a `Fault`, so that those behind it still can be; what makes the rest of a file
unreadable is a `UserError` of one line with the place.
"""

import codecs
import csv
import json
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from gcpo_mcore.base.errors import UserError, nearest
from gcpo_mcore.data.sound import Fault, from_json, said, shown

Values = dict[str, Any] | Fault  # by column; some of them may be a Fault
Located = tuple[str, Callable[[], Values]]  # where, what reads the values
HUB = "hf:"
HUB_OPTIONS = ("config", "split", "revision")
MAX_CSV_FIELD_CHARS = 2**31 - 1
OTHER_SEPARATORS = ";\t|"
NOT_UTF8 = {  # the longer first: UTF-32 begins as UTF-16 does
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PAR1": "parquet",
}


def located_rows(path: str) -> Iterator[Located]:
    """Every row of `path`, lazily: a file by its ending, a folder's files in the order of their names, or hf:NAME."""
    try:
        yield from _read_hub(path) if path.startswith(HUB) else _read_path(path)
    except OSError as error:  # no right to read it, a link to nowhere, a disk that fails
        raise UserError(f"{error.filename or path}: {error.strerror or said(error)}") from None


def _read_path(path: str) -> Iterator[Located]:
    for file in files_of(path):
        yield from READERS[file.suffix](str(file))


def files_of(path: str) -> list[Path]:
    """The file that `path` is, or those that a folder holds, in their order. UserError if there is none to read."""
    if Path(path).is_dir():
        return _files_in(path)
    if not Path(path).is_file():
        raise UserError(f"{path}: there is no such file or folder")
    ending = Path(path).suffix
    if ending not in READERS:
        raise UserError(f"{path}: unknown ending '{ending}'; known: {', '.join(READERS)}")
    return [Path(path)]


def _files_in(folder: str) -> list[Path]:
    """The data files that lie in the folder itself, not below it: there, another split may lie."""
    entries = [p for p in Path(folder).iterdir() if p.suffix in READERS and not p.name.startswith(".")]
    files = sorted(p for p in entries if not p.is_dir())
    if not files:
        raise UserError(f"{folder}: the folder has no file that ends in {', '.join(READERS)}")
    return files


def _refuse_other_encodings(path: str) -> None:
    """UserError, once, for a file that would have a fault in every line."""
    with open(path, "rb") as file:
        begin = file.read(4)
    for mark, name in NOT_UTF8.items():
        if begin.startswith(mark):
            raise UserError(f"{path}: it is {name}; it has to be text in UTF-8")


def _read_jsonl(path: str) -> Iterator[Located]:
    _refuse_other_encodings(path)
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"{path}, line {number}", partial(_row_of, line)


def _row_of(line: bytes) -> dict[str, Any] | Fault:
    try:
        return _object(from_json(line.decode("utf-8-sig")))
    except json.JSONDecodeError as error:
        return Fault(f"not valid JSON: {error.msg} at character {error.pos + 1}")
    except UnicodeDecodeError as error:
        return Fault(f"not UTF-8 at byte {error.start + 1}")


def _as_is(values: Values) -> Values:
    return values


def _object(value: Any) -> dict[str, Any] | Fault:
    return value if isinstance(value, dict | Fault) else Fault(f"not a JSON object but {type(value).__name__}")


def _read_json(path: str) -> Iterator[Located]:
    """A list of objects, or an object in which exactly one value is such a list."""
    _refuse_other_encodings(path)
    try:
        content = from_json(Path(path).read_bytes().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        hint = "; a file of one object per line is .jsonl" if error.msg == "Extra data" else ""
        raise UserError(
            f"{path}: not valid JSON: {error.msg} at line {error.lineno}, character {error.colno}{hint}"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start + 1}") from None
    if isinstance(content, dict):
        lists = {key: value for key, value in content.items() if isinstance(value, list)}
        if len(lists) != 1:
            raise UserError(f"{path}: an object has to hold one list of rows, this one holds {len(lists)}")
        (content,) = lists.values()
    if isinstance(content, Fault):
        raise UserError(f"{path}: {content.problem}")
    if not isinstance(content, list):
        raise UserError(f"{path}: not a list of rows but {type(content).__name__}")
    for number, values in enumerate(content):
        yield f"{path}, row {number}", partial(_object, values)


def _read_csv(path: str) -> Iterator[Located]:
    """The first line names the columns; every value is text, and an empty one is null."""
    _refuse_other_encodings(path)
    csv.field_size_limit(MAX_CSV_FIELD_CHARS)
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = _header(path, next(reader, None))
            line = reader.line_num + 1
            for fields in reader:
                if len(fields) == len(header):
                    values = {name: value or None for name, value in zip(header, fields, strict=True)}
                    yield f"{path}, line {line}", partial(_as_is, values)
                elif fields:
                    fault = Fault(f"{len(fields)} fields, the header has {len(header)}")
                    yield f"{path}, line {line}", partial(_as_is, fault)
                line = reader.line_num + 1  # a value may have several lines: the row is where it begins
        except UnicodeDecodeError:  # of a whole buffer, ahead of the row
            raise UserError(f"{path}, line {_first_not_utf8(path)}") from None
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: not valid csv: {error}") from None


def _first_not_utf8(path: str) -> str:
    """The first line of a file that is not UTF-8, and why: no character of UTF-8 has a line end in it."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"{number}: not UTF-8 at byte {error.start + 1}"
    raise AssertionError(f"{path} is UTF-8")


def _header(path: str, header: list[str] | None) -> list[str]:
    if header == []:
        raise UserError(f"{path}, line 1: it is blank; the first line names the columns")
    header = header or []  # of an empty file
    _refuse_doubled(f"{path}, line 1", header)
    if len(header) == 1 and (other := [c for c in OTHER_SEPARATORS if c in header[0]]):
        raise UserError(f"{path}, line 1: the columns are separated by {other[0]!r}; it has to be a comma")
    return header


def _refuse_doubled(where: str, names: list[str]) -> None:
    if repeated := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{where}: the column '{shown(min(repeated))}' is there twice")


def _read_parquet(path: str) -> Iterator[Located]:
    import pyarrow.parquet  # slow to import, and a run on jsonl does not need it

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            _refuse_doubled(path, names)
            for batch in file.iter_batches(batch_size=1024):
                cells = _Cells(names, batch.columns)
                for place in range(batch.num_rows):
                    yield f"{path}, row {number}", partial(cells.row, place)
                    number += 1
    except UserError:
        raise
    except Exception as error:  # damage ends in a dozen kinds, of pyarrow and of Python
        place = f", after row {number - 1}" if number else ""
        raise UserError(f"{path}{place}: not a readable parquet file: {said(error)}") from None


class _Cells:
    """The values of a batch of pyarrow columns, made when the first row is asked for."""

    def __init__(self, names: list[str], columns):
        self.names, self.columns = names, columns

    @cached_property
    def values(self) -> list[list[Any]]:
        return [_cells(column) for column in self.columns]

    def row(self, place: int) -> dict[str, Any]:
        return {name: column[place] for name, column in zip(self.names, self.values, strict=True)}


def _cells(column) -> list[Any]:
    """The values of a pyarrow array; a Fault for each that Python has no value for.

    A date beyond year 9999, a time zone that this machine does not know, bytes that are not UTF-8, a key twice.
    """
    try:
        return column.to_pylist()
    except Exception:  # of whatever Python makes its values with
        return [_cell(scalar) for scalar in column]


def _cell(scalar) -> Any:
    try:
        return scalar.as_py()
    except Exception as error:
        return Fault(f"of type {shown(str(scalar.type))} has no value in Python ({said(error)})")


def _read_hub(path: str) -> Iterator[Located]:
    yield from hub_rows(load_hub(path), path)


def hub_rows(found: Any, where: str) -> Iterator[Located]:
    """Every row of a data set as the package `datasets` has loaded it; `where` is its name in messages."""
    for number in range(len(found)):
        yield f"{where}, row {number}", partial(_hub_row, found, number)


def load_hub(path: str):
    """The datasets.Dataset of hf:NAME?split=train[&config=main][&revision=TAG]; NAME may be a folder of files as well.

    UserError if there is none.
    """
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
        return datasets.load_dataset(
            name, given.get("config"), split=given["split"], revision=given.get("revision"), streaming=False
        )
    except Exception as error:  # the library raises a dozen kinds: no network, no such name, split or config
        raise UserError(f"{path}: {said(error)}") from None


def _hub_row(found, number: int) -> dict[str, Any]:
    try:
        return dict(found[number])
    except Exception:  # a date beyond year 9999, a picture without the package that reads it
        return {column: _hub_cell(found.select_columns([column]), number, column) for column in found.column_names}


def _hub_cell(found, number: int, column: str) -> Any:
    try:
        return found[number][column]
    except Exception as error:
        return Fault(f"cannot be read ({said(error)})")


READERS = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}

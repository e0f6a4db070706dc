"""Files and folders that are either whole or not there."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gcpo_mcore.base.errors import UserError

# What an OSError says where a place is not to be written at, or its file system fails; anything else is a bug.
CANNOT_WRITE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOTDIR, errno.EISDIR,
    errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE,
}  # fmt: skip


def check_writable(folder: Path) -> None:
    """UserError if `folder`, or what there is of it, is no folder to write into. Writes nothing."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise UserError(f"{folder}: {there} is a file" if there.is_file() else f"{folder}: {there} leads nowhere")
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        raise UserError(f"{folder}: {there} cannot be written (no permission, or a read-only file system)")


def make_folder(folder: Path) -> None:
    """Makes a folder to write into, if it is not there. UserError if that cannot be."""
    check_writable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror})") from error


def problem_of(error: BaseException) -> str | None:
    """One line for a place that cannot be written, or read, because of the place itself; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in CANNOT_WRITE:
        return None
    places = [str(place) for place in (error.filename, error.filename2) if place is not None]
    return f"{' -> '.join(places) or 'a file of the run'}: {error.strerror}"


@contextmanager
def places_told() -> Iterator[None]:
    """A scope that turns an OSError of which the place is the reason into a UserError, for a command to print."""
    try:
        yield
    except OSError as error:
        if problem := problem_of(error):
            raise UserError(problem) from error
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A scope whose OSErrors name the file: that of a write or a sync does not by itself."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces `path` by one with this content; a run that dies here leaves the old one. OSError, which names it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with naming(path), open(new, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def jsonl(rows: list[dict]) -> str:
    """One line of json per row."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Removes a folder or a file, of a link only the link; nothing happens if it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def named_when_good(out: Path, replaces: bool = False) -> Iterator[Path]:
    """A path to write a folder at; it becomes `out` when the block ends well, and is gone when it does not.

    replaces: an `out` that is there gives way to it, once it is good. UserError if it cannot be written there.
    """
    unchecked, old = out.with_name(f"unchecked_{out.name}"), out.with_name(f"tmp_old_{out.name}")
    if old.exists() and not out.exists():  # killed between the two renames
        old.rename(out)
    for left in (unchecked, old):
        remove(left)
    try:
        yield unchecked
        if replaces and os.path.lexists(out):
            out.rename(old)
        unchecked.rename(out)
        sync_folder(out.parent)
        remove(old)
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise UserError(f"{error.filename or out}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(unchecked, ignore_errors=True)
        shutil.rmtree(unchecked.with_name(f"tmp_{unchecked.name}"), ignore_errors=True)  # write_hf's

"""Files and folders that are either whole or not there."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces `path` by one with this content; a run that dies here leaves the old one. OSError as usual."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with open(new, "wb") as file:
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


@contextmanager
def named_when_good(out: Path) -> Iterator[Path]:
    """A path to write a folder at; it becomes `out` when the block ends well, and is gone when it does not."""
    unchecked = out.with_name(f"unchecked_{out.name}")
    try:
        yield unchecked
        unchecked.rename(out)
    finally:
        shutil.rmtree(unchecked, ignore_errors=True)
        shutil.rmtree(unchecked.with_name(f"tmp_{unchecked.name}"), ignore_errors=True)  # write_hf's


def copy_model_files(source: Path, target: Path) -> None:
    """Copies a Hugging Face folder's small files (config, tokenizer, chat template): everything but weights."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix not in (".safetensors", ".bin") and not path.name.endswith(".index.json"):
            shutil.copy(path, target / path.name)

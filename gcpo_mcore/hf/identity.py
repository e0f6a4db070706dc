"""What a model's folder is known by, without reading it whole."""

from fnmatch import fnmatch
from pathlib import Path

import xxhash

from gcpo_mcore.hf.hub import ELSE, FILES

PIECES, PIECE_BYTES = 9, 65_536  # of a file, evenly spread, both ends among them


def model_identity(folder: str) -> str:
    """16 hex digits that change with the config, the tokenizer or the weights of a Hugging Face folder.

    A file is known by its name, its size and `PIECES` pieces of it: of weights that were trained on, all are others.
    """
    known = [pattern for pattern in (*FILES, *ELSE) if not pattern[:2].isupper()]  # not the licences
    digest = xxhash.xxh3_64()
    for file in sorted(Path(folder).iterdir()):
        if file.is_file() and any(fnmatch(file.name, pattern) for pattern in known):
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
            _look(file, digest)
    return digest.hexdigest()


def _look(file: Path, digest: xxhash.xxh3_64) -> None:
    last = max(file.stat().st_size - PIECE_BYTES, 0)
    with open(file, "rb") as opened:
        for place in sorted({last * piece // (PIECES - 1) for piece in range(PIECES)}):
            opened.seek(place)
            digest.update(opened.read(PIECE_BYTES))

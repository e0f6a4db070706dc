"""What prepared prompts depend on, in one name: data, settings, tokenizer, and the code that made them.

Nothing is read whole for it. A file is known by its size, its time of change and its first and last MiB.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from gcpo_mcore.base.places import PACKAGE
from gcpo_mcore.base.sums import code_digest
from gcpo_mcore.data.config import DataConfig
from gcpo_mcore.data.curriculum import Curriculum
from gcpo_mcore.data.readers import HUB, files_of, load_hub

MIB = 2**20
ROOMS = ("base", "data", "hf", "rewarding", "samples.py")  # where the code that makes a prompt can be, by the floors
NOT_OF_ROWS = {"name", "train", "eval", "curriculum", "cache", "golden_checked_rows"}  # every other key may be


def size_mib(path: str) -> float:
    """The size of a source on disk, in MiB. UserError if there is none."""
    if path.startswith(HUB):
        return load_hub(path).data.nbytes / MIB
    return sum(file.stat().st_size for file in files_of(path)) / MIB


def name_of(
    source: str,
    path: str,
    max_rows: int | None,
    config: DataConfig,
    curriculum: Curriculum | None,
    tokenizer,
    vocabulary: int | None,
    end_ids: tuple[int, ...],
) -> str:
    """A folder's name for the prepared prompts of a source; another one if they would be others."""
    parts: list[Any] = [
        source,
        _content(path),
        max_rows,
        config.model_dump(mode="json", exclude=NOT_OF_ROWS),
        _of_rows(curriculum),
        _tokenizer(tokenizer),
        vocabulary,
        end_ids,
        code_digest(*(PACKAGE / room for room in ROOMS)),  # what other code made is never taken for this one's
    ]
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16)
    return digest.hexdigest()


def _of_rows(curriculum: Curriculum | None) -> dict[str, Any] | None:
    """The settings of a curriculum that looks at rows; None for one that does not."""
    own = curriculum is not None and any(
        getattr(type(curriculum), name) is not getattr(Curriculum, name) for name in ("check", "number")
    )
    return curriculum.plain() if own and curriculum is not None else None


def _content(path: str) -> list[Any]:
    if path.startswith(HUB):
        return [path, load_hub(path)._fingerprint]
    return [[str(file.resolve()), *_look(file)] for file in files_of(path)]


def _look(file: Path) -> tuple[int, int, str]:
    """Size, time of change, and a digest of both ends."""
    stat = file.stat()
    with open(file, "rb") as opened:
        digest = hashlib.blake2b(opened.read(MIB))
        opened.seek(max(stat.st_size - MIB, 0))
        digest.update(opened.read(MIB))
    return stat.st_size, stat.st_mtime_ns, digest.hexdigest()


def _tokenizer(tokenizer) -> list[Any]:
    """A fast tokenizer is known by its own description, another by its words; both with the libraries' versions."""
    import tokenizers
    import transformers

    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    settings = {key: value for key, value in tokenizer.init_kwargs.items() if key != "name_or_path"}
    return [
        tokenizers.__version__,
        transformers.__version__,
        type(tokenizer).__qualname__,
        hashlib.blake2b(words.encode()).hexdigest(),
        tokenizer.chat_template,
        tokenizer.special_tokens_map,
        tokenizer.eos_token_id,
        settings,
    ]

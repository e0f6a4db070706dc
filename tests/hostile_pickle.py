"""Files that run code in whoever unpickles them, in the forms that pickles come in, and the manifest that fits them."""

import io
import json
import os
import pickle
from pathlib import Path

import torch

from gcpo_mcore.base.sums import sum_file, sum_of


class Touch:
    """Unpickled, it makes the file `marker`: code of its maker's choice."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def forms(marker: Path) -> dict[str, bytes]:
    """A plain pickle, and what torch.save makes: now and before torch 1.6."""
    found = {"pickle": pickle.dumps(Touch(marker))}
    for name, is_zip in (("torch", True), ("old torch", False)):
        file = io.BytesIO()
        torch.save({"state": Touch(marker)}, file, _use_new_zipfile_serialization=is_zip)
        found[name] = file.getvalue()
    return found


def fit_manifest(checkpoint: Path, *added: str) -> None:
    """Gives the manifest of a checkpoint the sums of the files as they are now, and of those `added`."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    there = [name for name in {**manifest["files"], **dict.fromkeys(added)} if (checkpoint / name).is_file()]
    sums = {name: sum_file(checkpoint / name) for name in there}
    manifest["files"] = {n: {"bytes": s.size, "algorithm": s.algorithm, "sum": s.digest} for n, s in sums.items()}
    content = json.dumps(manifest).encode()
    (checkpoint / "manifest.json").write_bytes(content)
    own = sum_of(content)
    (checkpoint / "manifest.sum").write_text(f"{own.algorithm} {own.digest}\n")

"""Models by hub name: `model.path=Qwen/Qwen2.5-0.5B` is downloaded once and then read from the cache."""

import re
from pathlib import Path

from gcpo_mcore.errors import UserError

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]  # no second copy of the weights in other formats


def local_folder(path: str) -> str:
    """`path` if it is a folder; else the local copy of the hub's model of that name.

    UserError if it is neither: a folder that does not exist, or a name that the hub or the cache does not have.
    """
    if Path(path).exists() or not HUB_NAME.fullmatch(path):
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return snapshot_download(path, allow_patterns=FILES)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"model.path={path}: no such folder, and no such model on the hub ({reason})") from None

"""Models by hub name: `model.path=Qwen/Qwen2.5-0.5B` is downloaded once and then read from the cache."""

import re
from dataclasses import dataclass
from pathlib import Path

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.places import SHAPES
from gcpo_mcore.hf.files import KEPT, TEMPLATES

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
FILES = [*KEPT, f"{TEMPLATES}/*.jinja", "*.py", "*.index.json", "model*.safetensors"]  # no second copy of the weights
ELSE = ["pytorch_model*.bin"]  # of a model whose weights are in no other form


def local_folder(path: str) -> str:
    """`path` if it is a folder; else the local copy of the hub's model of that name.

    UserError if it is neither: a folder that does not exist, or a name that the hub or the cache does not have.
    """
    if Path(path).exists() or not HUB_NAME.fullmatch(path):
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(path, allow_patterns=FILES)
        if not any(Path(folder).glob("*.safetensors")):
            folder = snapshot_download(path, allow_patterns=[*FILES, *ELSE])
        return folder
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"model.path={path}: no such folder, and no such model on the hub ({reason})") from None


@dataclass(frozen=True)
class ModelConfigFile:
    """A folder with a model's config.json, and whether the weights are there as well."""

    folder: str
    has_weights: bool


def find_config(path: str) -> ModelConfigFile | None:
    """The config.json of the model `path`, for plans: of the folder, of the hub's model in the cache, or of a known
    model in configs/shapes. None if it is in none of them; nothing is downloaded.
    """
    if HUB_NAME.fullmatch(path) and not Path(path).exists():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(path, "config.json")
        folder = Path(cached).parent if isinstance(cached, str) else SHAPES / path
    else:
        folder = Path(path)
    if not (folder / "config.json").is_file():
        return None
    return ModelConfigFile(str(folder), any(folder.glob("*.safetensors")))


def config_folder(path: str) -> str:
    """`find_config`'s folder; where it finds none, what `local_folder` says, which asks the hub."""
    found = find_config(path)
    return found.folder if found else local_folder(path)

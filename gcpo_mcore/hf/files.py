"""The files of a Hugging Face folder that a model needs beside its weights, and nothing else that lies there.

Kept: the config, the generation config, the tokenizer with its templates, the licence, and code that the config names
(auto_map). Left behind: weights of every format, what a training left (optimizer.pt, trainer_state.json), and the
model card, which describes another model's figures.
"""

import json
import shutil
import stat
from fnmatch import fnmatch
from pathlib import Path

KEPT = (
    "config.json", "generation_config.json",
    "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab*.json", "vocab*.txt", "merges*.txt",
    "*.model", "*.spm", "*.tiktoken", "tekken.json", "*.jinja", "chat_template*.json",
    "LICENSE*", "LICENCE*", "NOTICE*", "COPYING*", "USE_POLICY*",
)  # fmt: skip
NO_CODE = ("zero_to_fp32.py",)  # DeepSpeed's script for its checkpoints
TEMPLATES = "additional_chat_templates"  # a folder of *.jinja
# Of a config.json, what is about the weights that lay beside it: which file they are in, how they were quantised.
OF_THE_WEIGHTS = ("transformers_weights", "quantization_config", "compression_config")


def copy_model_files(source: Path, target: Path) -> None:
    """Makes `target` anew with what of `source` a model needs beside its weights. File modes are those of the umask."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    patterns = [*KEPT, "*.py"] if _names_code(source) else KEPT
    for path in sorted(source.iterdir()):
        is_needed = any(fnmatch(path.name, pattern) for pattern in patterns) and path.name not in NO_CODE
        if path.is_file() and is_needed:
            shutil.copyfile(path, target / path.name)
    for path in sorted((source / TEMPLATES).glob("*.jinja")):
        (target / TEMPLATES).mkdir(exist_ok=True)
        shutil.copyfile(path, target / TEMPLATES / path.name)


def describe_weights(config: Path, dtype: str) -> None:
    """Makes a config.json say that its weights are plain ones of `dtype`."""
    raw = {key: value for key, value in json.loads(config.read_text()).items() if key not in OF_THE_WEIGHTS}
    for key in {"torch_dtype", "dtype"} & raw.keys() or {"dtype"}:
        raw[key] = dtype
    config.write_text(json.dumps(raw, indent=2) + "\n")


def give_modes_of_umask(folder: Path) -> None:
    """Gives every file right in `folder` the mode that this process's umask gives to new files.

    safetensors 0.8 writes files that nobody else may read, whatever the umask.
    """
    probe = folder / ".mode"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(mode)


def _names_code(folder: Path) -> bool:
    """Whether the config or the tokenizer is a class in a file of the folder."""
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file() and "auto_map" in json.loads((folder / name).read_text()):
            return True
    return False

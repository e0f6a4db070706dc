"""The run folder and its checkpoints: written whole or not at all, the newest good one found again.

runs/NAME/config.yaml            the resolved configuration
runs/NAME/model/                 config.json and tokenizer of the model (what an export needs besides weights)
runs/NAME/metrics.jsonl, tb/     numbers;  rollouts/ the samples of each step;  logs/ the console's lines
runs/NAME/hf/, hf_step           the last export, and the step that it is of
runs/NAME/lock, writer.json      who writes into it (gcpo_mcore/run/lock.py)
runs/NAME/checkpoints/step_000020/{shards/, rank_*.json, state.json, sampled.safetensors, manifest.json, manifest.sum}
"""

import json
import logging
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gcpo_mcore.base.config import flat, is_below
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.files import remove, sync_folder, write_atomically
from gcpo_mcore.base.sums import Sum, damage, size_damage, sum_file
from gcpo_mcore.hf.architecture import Architecture
from gcpo_mcore.hf.files import copy_model_files
from gcpo_mcore.run.manifest import read_manifest, write_manifest

EXPORT_NOTE = "hf_step"  # the file that has the step of the export
NAME = re.compile(r"step_([0-9]{6,})")  # of a checkpoint's folder

log = logging.getLogger(__name__)

CONFIG, STATE, SAMPLED = "config.yaml", "state.json", "sampled.safetensors"
OF_THE_LOOP = (STATE, SAMPLED)


class RunFolder:
    """One run's folder. Only rank 0 writes, except for the shards of a checkpoint."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    def steps(self) -> list[int]:
        """Steps that have a finished checkpoint folder, newest first. What else lies there is none of ours."""
        places = self.checkpoints.glob("step_*") if self.checkpoints.is_dir() else []
        found = {int(match[1]) for place in places if (match := NAME.fullmatch(place.name))}
        return sorted((step for step in found if self.folder(step).is_dir()), reverse=True)

    def folder(self, step: int) -> Path:
        """The folder in which the checkpoint of `step` lies."""
        return self.checkpoints / f"step_{step:06d}"

    def temporary(self, step: int) -> Path:
        """The folder in which the checkpoint of `step` lies while it is written."""
        return self.checkpoints / f"tmp_step_{step:06d}"

    def aside(self, step: int) -> Path:
        """The folder in which a checkpoint of `step` lies that the run has gone back behind."""
        return self.checkpoints / f"aside_step_{step:06d}"

    @property
    def export(self) -> Path:
        """The folder in which the Hugging Face export of the last step lies."""
        return self.path / "hf"

    def has_export_of(self, step: int) -> bool:
        """Whether the export is of `step`: a run that was made longer has that of its former end until its new one."""
        note = self.path / EXPORT_NOTE
        return self.export.is_dir() and (not note.is_file() or note.read_text().strip() == str(step))

    def note_export(self, step: int) -> None:
        """Notes down the step of which the export is."""
        write_atomically(self.path / EXPORT_NOTE, f"{step}\n")

    def go_back(self, step: int) -> None:
        """Sets aside what is of steps after `step`, from which a run goes on: damaged, or of a past that is given up.

        A checkpoint lies there as aside_step_* until the run has a new one of its step. Nothing reads it.
        """
        for later in [found for found in self.steps() if found > step]:
            log.warning("checkpoint %s is set aside: the run goes on from step %d", self.folder(later), step)
            remove(self.aside(later))
            self.folder(later).rename(self.aside(later))
            export = self.path / f"hf_step_{later:06d}"
            if export.is_dir():
                remove(self.path / f"aside_{export.name}")
                export.rename(self.path / f"aside_{export.name}")
        note = self.path / EXPORT_NOTE
        noted = note.read_text(errors="replace").strip() if note.is_file() else "0"
        if not noted.isdigit() or int(noted) > step:
            self.note_export(0)  # it is made again

    def state(self, step: int) -> dict[str, Any]:
        """The state that `begin_checkpoint` was given for `step`. UserError if there is none."""
        place = self.folder(step) / STATE
        try:
            found = json.loads(place.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{place} cannot be read ({error})") from error
        if not isinstance(found, dict):
            raise UserError(f"{place} cannot be read (it holds a {type(found).__name__})")
        return found

    def sampled(self, step: int) -> bytes:
        """The responses that `begin_checkpoint` was given for `step`; empty if there were none."""
        place = self.folder(step) / SAMPLED
        return place.read_bytes() if place.is_file() else b""

    def newest_good(self, below: int | None = None, reads_all: bool = True) -> Path | None:
        """The newest checkpoint, of a step below that one, that `check` finds good; a warning for each bad one."""
        for step in self.steps():
            if below is not None and step >= below:
                continue
            problem = check(self.folder(step), reads_all)
            if problem is None:
                return self.folder(step)
            log.warning("checkpoint %s is left out: %s", self.folder(step), problem)
        return None

    # --- config ------------------------------------------------------------------------------------------------

    def check_same_run(self, config: dict[str, Any], free: Collection[str], mappings: Collection[str]) -> None:
        """UserError, naming the key, if this folder was made by another configuration; `free` keys may differ.

        mappings: the keys whose value has names of the user's in it (`Config.mappings`): one more makes another run.
        """
        if not (self.path / CONFIG).is_file():
            return
        before, now = dict(flat(self.read_config())), dict(flat(config))
        # A key that the folder does not know came with a newer version; its default does what was done before (but a
        # name is the user's own). Of what differs, a key that both have comes first: another rollout.engine takes all
        # keys of the other one away.
        for key in sorted(before, key=lambda key: (key not in now, key)):
            if before[key] != now.get(key) and not is_below(key, free):
                raise UserError(
                    f"{self.path} was made with {key}={before[key]}, not {now.get(key)}; "
                    f"choose another run.name, or remove the folder"
                )
        for name in _names_in(now, mappings):
            if not (any(is_below(key, {name}) for key in before) or is_below(name, free)) and _knows(before, name):
                raise UserError(f"{self.path} was made without {name}; choose another run.name, or remove the folder")

    def read_config(self) -> dict[str, Any]:
        """What `write_config` wrote. UserError if that is not what is there."""
        path = self.path / CONFIG
        try:
            found = OmegaConf.to_container(OmegaConf.load(path))
        except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
            raise UserError(f"{path}: cannot be read ({reason})") from error
        if not isinstance(found, dict) or not found:
            raise UserError(f"{path}: holds no configuration")
        return {str(key): value for key, value in found.items()}

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes the resolved configuration."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / CONFIG, OmegaConf.to_yaml(OmegaConf.create(config)))

    def keep_model_files(self, model_folder: str) -> None:
        """Copies what an export needs besides weights, so that the run folder stands alone."""
        target = self.path / "model"
        if not target.is_dir():
            copy_model_files(Path(model_folder), self.path / "tmp_model")
            (self.path / "tmp_model").rename(target)

    # --- checkpoints -------------------------------------------------------------------------------------------

    def begin_checkpoint(self, step: int, state: dict[str, Any], sampled: bytes = b"") -> None:
        """Makes a temporary folder to write the checkpoint of `step` into, with the loop's `state` (JSON) in it, and
        what is `sampled` and not used yet, if anything is."""
        temporary = self.temporary(step)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write_atomically(temporary / STATE, json.dumps(state))
        if sampled:
            write_atomically(temporary / SAMPLED, sampled)

    def finish_checkpoint(self, step: int, arch: Architecture, sums: Mapping[str, Sum]) -> None:
        """Adds the manifest, makes it durable, and gives the folder its name.

        sums: of what was written into it since `begin_checkpoint`, by path. None of it is read again.
        """
        temporary = self.temporary(step)
        own = {name: sum_file(temporary / name) for name in OF_THE_LOOP if (temporary / name).is_file()}
        write_manifest(temporary, step, arch, {**own, **sums})
        shutil.rmtree(self.folder(step), ignore_errors=True)
        temporary.rename(self.folder(step))
        sync_folder(self.checkpoints)
        remove(self.aside(step))

    def drop_old(self, keep: int, keep_every: int | None = None, in_use: Collection[int] = ()) -> None:
        """Removes all checkpoints but the newest `keep` good ones, those of every `keep_every`th step and of the steps
        `in_use`. Damaged ones count for nothing: no good one goes for their sake.

        Unfinished ones, of a run that died, go as well: none may be on its way.
        """
        good = [step for step in self.steps() if check(self.folder(step), reads_all=False) is None]
        for old in self.steps() if len(good) >= keep else []:
            if old < good[keep - 1] and old not in in_use and not (keep_every and old % keep_every == 0):
                remove(self.folder(old))
        for unfinished in self.checkpoints.glob("tmp_step_*"):
            shutil.rmtree(unfinished)


def _names_in(config: Mapping[str, Any], mappings: Collection[str]) -> list[str]:
    """The dotted keys right below `mappings`, of a flat configuration."""
    parts = [key.split(".") for key in config]
    splits = {(".".join(part[:end]), part[end]) for part in parts for end in range(1, len(part))}
    return sorted(f"{mapping}.{name}" for mapping, name in splits if mapping in mappings)


def _knows(config: Mapping[str, Any], name: str) -> bool:
    """Whether a flat configuration has the mapping in which `name` would be."""
    return any(is_below(key, {name.rpartition(".")[0]}) for key in config)


def check(checkpoint: Path, reads_all: bool = True) -> str | None:
    """The words for what is wrong with a checkpoint folder, or None: its files and their sums are in its manifest.

    reads_all: read every byte. Otherwise only the manifest and what is of the loop, and the files' sizes: whoever
    loads the others compares them.
    """
    try:
        manifest = read_manifest(checkpoint)
    except UserError as error:
        return str(error)
    for name, expected in manifest.files.items():
        compare = damage if reads_all or name in OF_THE_LOOP else size_damage
        if problem := compare(checkpoint / name, expected):
            return f"{name} {problem}"
    return None


def check_architecture(checkpoint: Path, arch: Architecture) -> None:
    """Raises a UserError if the checkpoint holds another model than `arch`."""
    difference = arch.difference(read_manifest(checkpoint).architecture)
    if difference:
        raise UserError(f"{checkpoint} is a checkpoint of another model: {difference}")

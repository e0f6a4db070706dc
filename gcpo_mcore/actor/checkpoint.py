"""The actor's state on disk: it loads at any layout. checkpoint_writer.py writes it.

FOLDER/shards/      model and optimizer, in pieces (gcpo_mcore/shards): of rank 3, __3_0.distcp weights, __3_1 state
FOLDER/rank_*.json  random-number states, one file per rank (rank_*.pt in older ones)
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch.distributed as dist
from megatron.core.models.gpt import GPTModel

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.adapter_places import check_described
from gcpo_mcore.actor.optimizer_state import main_name, set_common_state, stepped_by
from gcpo_mcore.actor.random_states import OLD_SUFFIX, set_random_states
from gcpo_mcore.actor.sharded import pieces, places, values
from gcpo_mcore.base import platform
from gcpo_mcore.base.collectives import from_every_rank
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.sums import Sum, damage
from gcpo_mcore.shards.piece import Piece
from gcpo_mcore.shards.reading import Reading, read_common
from gcpo_mcore.shards.writing import COMMON, INDEX

SHARDS = "shards"
Sums = Mapping[str, Sum]  # of a checkpoint's files, by their path in it


class DamagedCheckpoint(UserError):
    """A checkpoint of which a file is not what was written, in words that name rank and file."""


def random_states_file(folder: Path) -> Path:
    """The file of this rank's random-number states in a checkpoint."""
    return folder / f"rank_{dist.get_rank():05d}.json"


def load_weights(chunks: Sequence[GPTModel], folder: Path) -> None:
    """Reads only the weights of a checkpoint, into a stage's `chunks` at any layout, and compares no sums."""
    with platform.megatron(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = _weights(chunks)
    Reading(folder / SHARDS, wanted).fill()


def load_actor(actor: Actor, folder: Path, sums: Sums) -> None:
    """Restores what a CheckpointWriter wrote, whatever the layout it was written at. A collective over all ranks.

    Every rank compares the files that it reads with `sums` first; those that have none are not compared. Brings an
    offloaded actor back to the device. Random-number states come back only if this rank existed then.

    On every rank, before anything was changed, with what the first rank that met something saw: DamagedCheckpoint, or
    UserError if the files are what was written, but not what this actor can read.
    """
    actor.onload()
    stage = actor.stage()
    with platform.megatron(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights, stepped = _weights(stage.chunks), stepped_by(stage.optimizer, stage.chunks)
        problem, reading, own, common = None, None, None, {}
        try:
            _compare(folder, sums, [f"{SHARDS}/{COMMON}", f"{SHARDS}/{INDEX}"])
            common = read_common(folder / SHARDS)
            check_described(folder, common.get("adapter", {}), stage.adapted, actor.hf_folder)
            states = [piece for one in stepped for piece in one.states(main_name(common))]
            reading = Reading(folder / SHARDS, [*weights, *states])
            own = random_states_file(folder)
            older = own.with_suffix(OLD_SUFFIX)
            own = older if older.name in sums or older.is_file() else own
            _compare(folder, sums, sorted(f"{SHARDS}/{name}" for name in reading.files))
            _compare(folder, sums, [own.name] if own.is_file() or own.name in sums else [])
        except UserError as error:
            problem = (type(error), str(error))
    for rank, seen in enumerate(from_every_rank(problem)):
        if seen:
            raise seen[0](f"rank {rank}: {seen[1]}")
    assert reading is not None and own is not None  # nobody saw a problem
    reading.fill()
    set_common_state(stage.optimizer, common)
    if own.is_file():
        set_random_states(own)


def _weights(chunks: Sequence[GPTModel]) -> list[Piece]:
    """The pieces of every weight of a stage's chunks. Runs inside `platform.megatron()`."""
    return [piece for place in places(chunks) for piece in pieces(place, values(place).view(-1))]


def _compare(folder: Path, sums: Sums, names: Iterable[str]) -> None:
    """DamagedCheckpoint for the first file that is not what its sum says."""
    for name in names:
        if name in sums and (problem := damage(folder / name, sums[name])):
            raise DamagedCheckpoint(f"{name} {problem}")

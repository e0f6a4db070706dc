"""Writes the actor's state while training goes on: a thread of each rank writes what that rank has, and sums it.

writer = CheckpointWriter(actor, folder, is_snapshot=True)  # the state as it is now
writer.start()                                              # training may go on
while not writer.is_done(): ...
sums = writer.finish()                                      # every rank's files are whole
"""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.checkpoint import SHARDS, random_states_file
from gcpo_mcore.actor.optimizer_state import common_state, stepped_by
from gcpo_mcore.actor.random_states import random_states
from gcpo_mcore.actor.sharded import is_first_replica, objects, pieces, places, values
from gcpo_mcore.actor.stage import Stage
from gcpo_mcore.base import platform
from gcpo_mcore.base.background import Background
from gcpo_mcore.base.collectives import from_every_rank, from_rank_0, to_rank_0
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.sums import Sum, summed_file
from gcpo_mcore.shards.piece import Piece
from gcpo_mcore.shards.writing import Entry, write_file, write_index


class CheckpointWriter:
    """One checkpoint of `actor` below `folder`, which exists. Making one is a collective over all ranks.

    An offloaded actor is back on the device afterwards.

    is_snapshot: copy what is to be written, so that it may change while it is. Without it, training has to wait.
    """

    def __init__(self, actor: Actor, folder: Path, is_snapshot: bool):
        self.folder = folder
        self._background: Background | None = None
        self._entries: list[Entry] = []
        self._sums: dict[str, Sum] = {}
        actor.onload()
        stage = actor.stage()
        if dist.get_rank() == 0:
            (folder / SHARDS).mkdir()
        dist.barrier()
        with platform.megatron(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            weights, states = list(_weights(stage)), list(_states(stage))
            self._objects = list(objects(stage.chunks))
        self._files = [[_copied(piece) for piece in of] if is_snapshot else of for of in (weights, states)]
        self._common = common_state(stage.optimizer) | ({"adapter": stage.adapted} if stage.adapted else {})
        self._random_states = random_states()

    def start(self) -> None:
        """Begins to write this rank's files."""
        self._background = Background(self._write, "checkpoint writer")

    def is_done(self) -> bool:
        """Whether every rank's files are written, or could not be. A collective over all ranks."""
        running = torch.tensor(float(self._started().is_running), device=platform.device())
        dist.all_reduce(running)
        return running.item() == 0

    def finish(self) -> dict[str, Sum]:
        """Waits for every rank's files and writes their index. A collective over all ranks.

        Returns the sum of every file, by its path in the folder, on rank 0; elsewhere {}. UserError on every rank, with
        the reason, if one of them could not write its files.
        """
        background = self._started()
        background.wait()
        error = background.error
        for rank, reason in enumerate(from_every_rank(_said(error))):
            if reason:
                raise UserError(f"rank {rank} could not write {self.folder} ({reason})") from error
        of_ranks = to_rank_0((self._entries, self._sums))
        sums: dict[str, Sum] = {}
        try:
            if of_ranks is not None:
                sums = {name: each for _, of_rank in of_ranks for name, each in of_rank.items()}
                entries = [entry for of_rank, _ in of_ranks for entry in of_rank]
                index = write_index(self.folder / SHARDS, entries, self._common)
                sums |= {f"{SHARDS}/{name}": each for name, each in index.items()}
        except (OSError, RuntimeError, UserError) as failure:  # torch writes to full disks with a RuntimeError
            error = failure
        if reason := from_rank_0(_said(error)):
            raise UserError(f"rank 0 could not write {self.folder} ({reason})") from error
        return sums

    def _started(self) -> Background:
        assert self._background is not None, "start() comes first"
        return self._background

    def _write(self) -> None:
        rank, states = dist.get_rank(), random_states_file(self.folder)
        with summed_file(states) as file:
            file.write(self._random_states)
        self._sums[states.name] = file.sum
        for number, of in enumerate(self._files):
            own = self._objects if number == 0 else []
            if of or own:
                name = f"{SHARDS}/__{rank}_{number}.distcp"
                entries, self._sums[name] = write_file(self.folder / name, of, own)
                self._entries += entries
        self._files = []  # the copies' memory


def save_actor(actor: Actor, folder: Path) -> dict[str, Sum]:
    """Writes the actor's state below `folder` (which exists) and waits for it. A collective over all ranks.

    Returns the files' sums on rank 0.
    """
    writer = CheckpointWriter(actor, folder, is_snapshot=False)
    writer.start()
    return writer.finish()


def _weights(stage: Stage) -> Iterator[Piece]:
    """The pieces of the weights that this rank writes: where the optimizer is distributed, of what it steps."""
    for one in stepped_by(stage.optimizer, stage.chunks):
        if one.is_mine_to_write:
            yield from one.weights()
    for place in places(stage.chunks):
        is_stepped = place.data is not None and place.data.requires_grad
        if not is_stepped and is_first_replica(place):  # everybody has it whole
            yield from pieces(place, values(place).view(-1))


def _states(stage: Stage) -> Iterator[Piece]:
    """The pieces of the optimizer's state that this rank writes."""
    for one in stepped_by(stage.optimizer, stage.chunks):
        if one.is_mine_to_write:
            yield from one.states()


def _copied(piece: Piece) -> Piece:
    """The piece in host memory of its own."""
    return replace(piece, tensor=piece.tensor.detach().to("cpu", copy=True).contiguous())


def _said(error: Exception | None) -> str | None:
    return f"{type(error).__name__}: {error}".splitlines()[0] if error else None

"""Writes the actor's state while training goes on: megatron-core plans the files, a thread of each rank writes them.

    writer = CheckpointWriter(actor, folder, is_snapshot=True)  # the state as it is now
    writer.start()                                              # training may go on
    while not writer.is_done(): ...
    writer.finish()                                             # every rank's files are whole

megatron-core would write in forked processes, and a process with gloo's or NCCL's threads cannot be forked safely.
"""

import queue
import random
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncRequest
from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.checkpoint import SHARDING, random_states_file
from gcpo_mcore.actor.sharded import sharded_chunks
from gcpo_mcore.base import platform
from gcpo_mcore.base.background import Background
from gcpo_mcore.base.collectives import from_every_rank
from gcpo_mcore.base.errors import UserError


class CheckpointWriter:
    """One checkpoint of `actor` below `folder`, which exists. Making one is a collective over all ranks.

    An offloaded actor is back on the device afterwards.

    is_snapshot: copy what is to be written, so that it may change while it is. Without it, training has to wait.
    """

    def __init__(self, actor: Actor, folder: Path, is_snapshot: bool):
        self.folder = folder
        self._background: Background | None = None
        actor.onload()
        shards = folder / "shards"
        if dist.get_rank() == 0:
            shards.mkdir()
        dist.barrier()
        with platform.megatron(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._request = _planned(actor, shards)
            self._files = self._request.preload_fn() if self._request.preload_fn else []
        if is_snapshot and self._files:
            self._files = _copied(self._files, self._request.async_fn_args[1])
        self._random_states = {
            "torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate(),
        }  # fmt: skip
        if platform.HAS_CUDA:
            self._random_states["cuda"] = torch.cuda.get_rng_state()

    def start(self) -> None:
        """Begins to write this rank's files."""
        self._background = Background(self._write, "checkpoint writer")

    def is_done(self) -> bool:
        """Whether every rank's files are written, or could not be. A collective over all ranks."""
        running = torch.tensor(float(self._started().is_running), device=platform.device())
        dist.all_reduce(running)
        return running.item() == 0

    def finish(self) -> None:
        """Waits for every rank's files and completes the checkpoint. A collective over all ranks.

        UserError on every rank, with the reason, if one of them could not write its files.
        """
        background = self._started()
        background.wait()
        error = background.error
        mine = f"{type(error).__name__}: {error}".splitlines()[0] if error else None
        for rank, reason in enumerate(from_every_rank(mine)):
            if reason:
                raise UserError(f"rank {rank} could not write {self.folder} ({reason})") from error
        with platform.megatron():
            for finalize in self._request.finalize_fns:
                finalize()

    def _started(self) -> Background:
        assert self._background is not None, "start() comes first"
        return self._background

    def _write(self) -> None:
        torch.save(self._random_states, random_states_file(self.folder))
        if not self._files:
            return
        assert isinstance(self._request.async_fn, partial)
        (transforms, _), (_, _, results) = self._request.async_fn.args, self._request.async_fn_args
        # Its type wants the queues of processes; threads' have the same methods.
        write: Callable[..., None] = FileSystemWriterAsync.write_preloaded_data
        written, unfinished = queue.Queue(), queue.Queue()
        for number, file in enumerate(self._files):
            unfinished.put(number)
            write(transforms, number, file, written, unfinished, use_fsync=True)
        outcome = dict(written.get() for _ in self._files)
        for result in outcome.values():
            if isinstance(result, Exception):
                raise result
        results.put(outcome)
        self._files = []  # the copies' memory


def save_actor(actor: Actor, folder: Path) -> None:
    """Writes the actor's state below `folder` (which exists) and waits for it. A collective over all ranks."""
    writer = CheckpointWriter(actor, folder, is_snapshot=False)
    writer.start()
    writer.finish()


def _copied(files: list, originals: list) -> list:
    """Megatron's list of what to write, tensors copied unless they were copied from a device already."""
    copies = []
    for (path, key, (objects, tensors)), (_, _, (_, sources)) in zip(files, originals, strict=True):
        pairs = zip(tensors, sources, strict=True)
        mine = [(item, tensor.clone() if tensor is source else tensor) for (item, tensor), (_, source) in pairs]
        copies.append((path, key, (objects, mine)))
    return copies


def _planned(actor: Actor, shards: Path) -> AsyncRequest:
    """What megatron-core would have this rank write below `shards`."""
    stage = actor.stage()
    # The optimizer finds its parameters by the model's entries, so it gets a dictionary of its own.
    optimizer = stage.optimizer.sharded_state_dict(sharded_chunks(stage.chunks), metadata=SHARDING)
    state = {"model": sharded_chunks(stage.chunks), "optimizer": optimizer}
    request = dist_checkpointing.save(state, str(shards), content_metadata=SHARDING, async_sharded_save=True)
    assert request is not None  # it is what an asynchronous save returns
    return request

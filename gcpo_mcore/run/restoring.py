"""Goes on from a run's checkpoint, or from the one before it where a rank meets a damaged file."""

import logging
from typing import Any

import torch.distributed as dist

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.checkpoint import DamagedCheckpoint, load_actor
from gcpo_mcore.base.collectives import from_rank_0
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.run.folder import RunFolder
from gcpo_mcore.run.manifest import named_versions, read_manifest

log = logging.getLogger(__name__)


def restore(actor: Actor, folder: RunFolder, step: int) -> tuple[dict[str, Any], bytes]:
    """Loads the checkpoint of `step` into `actor`, each rank what it needs; returns the loop's state and, on rank 0,
    what was sampled and not used.

    A collective over all ranks. A checkpoint of which a rank reads a damaged file is left out by all of them, with a
    warning that names both; UserError in these words if no older one is good. What is newer is set aside.
    """
    while True:
        checkpoint = folder.folder(step)
        try:
            with named_versions(checkpoint):
                load_actor(actor, checkpoint, read_manifest(checkpoint).files)
            if dist.get_rank() == 0:
                folder.go_back(step)
            return folder.state(step), folder.sampled(step) if dist.get_rank() == 0 else b""
        except DamagedCheckpoint as error:
            is_first = dist.get_rank() == 0
            older = folder.newest_good(below=step, reads_all=False) if is_first else None
            found = from_rank_0(older and older.name)
            if found is None:
                raise UserError(f"{checkpoint}: {error}; no older checkpoint is good") from error
            if is_first:
                log.warning("checkpoint %s is left out: %s", checkpoint, error)
            step = int(found.removeprefix("step_"))

"""Run by test_checkpoint.py under torchrun: python relayout_worker.py OUT MODELS.json CASE...

A case is NAME:MODEL[@CHECKPOINT][:tensor=2:...]. Without a checkpoint it takes two updates and saves OUT/NAME; with
one (the name of an earlier case) it loads that and saves what it has then. Either takes one more update. OUT/NAME.pt
has the checkpoint's tensors, whole, as megatron-core's own loader reads them, and the weights after that update. old=1
saves as the project did before it had a writer of its own; late=1 takes a second checkpoint, OUT/NAME late, at the same
moment, and writes it after that update.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state

from gcpo_mcore.actor.checkpoint import load_actor
from gcpo_mcore.actor.checkpoint_writer import CheckpointWriter, save_actor
from gcpo_mcore.base import platform
from gcpo_mcore.run.setup import process_group
from tests.actor.old_checkpoint import write_as_before
from tests.actor.worker import build_actor, deal, gcpo, take_update


def main(out: str, models: str, *cases: str) -> None:
    folders, algorithm, folder = json.loads(Path(models).read_text()), gcpo(), Path(out)
    with process_group(threads=1, deadline_s=900):
        for case in cases:
            name, model, *options = case.split(":")
            model, _, checkpoint = model.partition("@")
            layout = dict(option.split("=", 1) for option in options)
            actor = build_actor(folders[model], layout)
            batch = deal(actor)
            if checkpoint:
                load_actor(actor, folder / checkpoint, sums={})
            else:
                for update in range(2):
                    take_update(actor, algorithm, batch, update)
            late = folder / f"{name} late"
            if dist.get_rank() == 0:
                (folder / name).mkdir()
                late.mkdir()
            dist.barrier()
            writer = CheckpointWriter(actor, late, is_snapshot=True) if "late" in layout else None
            write = write_as_before if "old" in layout else save_actor
            write(actor, folder / name)
            with platform.megatron():
                state = dist_checkpointing.load_plain_tensors(str(folder / name / "shards"))
            take_update(actor, algorithm, batch, 2)
            if writer:
                writer.start()
                writer.finish()
            weights = {key: tensor.clone() for key, tensor in actor.export()}
            if dist.get_rank() == 0:
                torch.save({"state": state, "weights": weights}, folder / f"{name}.pt")
            dist.barrier()
            parallel_state.destroy_model_parallel()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The gate on a model whose Megatron weights are read wrongly, or run by other layers. Run by test_convert.py:

    python gate_worker.py MODEL RUN

RUN is the checkpoint that to-megatron made of MODEL. Prints what the gate says, a line for each.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from gcpo_mcore.actor.model import start_parallel
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.convert.gate import compare
from gcpo_mcore.convert.shards import ONE_LAYOUT, Read, ShardReader, empty_model
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.run.folder import RunFolder
from gcpo_mcore.run.setup import process_group

EMBEDDING = "embedding.word_embeddings.weight"


def one_row_off(read: Read) -> Read:
    """A row of the embedding that none of the gate's tokens meets is another."""

    def wrong(name: str) -> torch.Tensor:
        tensor = read(name).clone()
        if name == EMBEDDING:
            tensor[3] += 1e-6
        return tensor

    return wrong


def rotated_heads(read: Read) -> Read:
    return lambda name: (
        read(name).roll(1, 0) if name.endswith("layers.1.self_attention.linear_qkv.weight") else read(name)
    )


def main(model_folder: str, run: str) -> None:
    arch = read_architecture(model_folder)
    with process_group(threads=1, deadline_s=900):
        start_parallel(ONE_LAYOUT, seed=0)
        right = ShardReader(RunFolder(run).folder(0) / "shards", empty_model(arch, torch.float32))
        other = replace(arch, norm_eps=0.1)  # layers that are not transformers', on the same weights
        for layers, read in ((arch, right), (arch, one_row_off(right)), (arch, rotated_heads(right)), (other, right)):
            try:
                print(compare(layers, read, Path(model_folder), torch.float32, Path(run)) < 1e-4)
            except UserError as error:
                print(error)


if __name__ == "__main__":
    main(*sys.argv[1:])

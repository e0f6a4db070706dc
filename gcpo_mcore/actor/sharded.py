"""megatron-core's dist_checkpointing: which piece of which tensor a rank holds, and reading such pieces.

Everything here runs inside `platform.megatron()`, which the caller opens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.models.gpt import GPTModel

Sharded = ShardedTensor | ShardedTensorFactory  # one piece of a tensor; a factory makes several of one parameter


def sharded_chunks(chunks: Sequence[GPTModel]) -> dict[str, dict[str, Any]]:
    """megatron-core's description of the weights of a stage's chunks: which piece of which tensor each of them is."""
    return {str(number): chunk.sharded_state_dict(prefix="") for number, chunk in enumerate(chunks)}


def load_sharded(wanted: dict[str, Any], shards: Path, is_whole: bool) -> dict[str, Any]:
    """What `wanted` describes, read from `shards`, in its form. A collective over all ranks.

    is_whole: every piece of a tensor has to be asked for by somebody; False: whoever asks needs only those it names.
    """
    found = dist_checkpointing.load(wanted, str(shards), validate_access_integrity=is_whole)
    assert isinstance(found, dict)  # anything else is for a strictness that was not asked for
    return found

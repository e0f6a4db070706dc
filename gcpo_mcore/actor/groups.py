"""megatron-core's process groups of this rank, which it types as what they may be before they are made."""

import torch.distributed as dist
from megatron.core import parallel_state


def tensor_group() -> dist.ProcessGroup:
    """The ranks that share a layer's weights."""
    return _made(parallel_state.get_tensor_model_parallel_group())


def data_group() -> dist.ProcessGroup:
    """The ranks that have the same part of the model and other rows."""
    return _made(parallel_state.get_data_parallel_group())


def pipeline_group() -> dist.ProcessGroup:
    """The ranks that hold the stages of one model, in their order."""
    return _made(parallel_state.get_pipeline_model_parallel_group())


def context_group() -> dist.ProcessGroup:
    """The ranks that share a sequence's tokens."""
    return _made(parallel_state.get_context_parallel_group())


def expert_group() -> dist.ProcessGroup:
    """The ranks over which a layer's experts are dealt."""
    return _made(parallel_state.get_expert_model_parallel_group())


def _made(group: object) -> dist.ProcessGroup:
    assert isinstance(group, dist.ProcessGroup), "start_parallel comes first"
    return group

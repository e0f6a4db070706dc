"""Gathers new weights while the next pass runs, where the distributed optimizer leaves each rank with its share.

megatron-core waits for a module's weights when the module is called. Whoever reads a weight otherwise has to `wait`.
"""

import torch
from megatron.core.distributed import DistributedDataParallel

from gcpo_mcore.base import platform


class WeightGather:
    """Gathers the weights of one rank's chunks; does nothing unless they were wrapped with `overlap_param_gather`."""

    def __init__(self, ddp: list[DistributedDataParallel]):
        self.ddp = [chunk for chunk in ddp if chunk.ddp_config.overlap_param_gather]
        self.is_under_way = False

    def begin(self) -> None:
        """Sends this rank's share, to be called after an update. What the next pass needs first goes first."""
        with platform.megatron():
            for chunk in self.ddp:
                for buckets in reversed(chunk.bucket_groups):  # they begin with the last layers, for the backward pass
                    buckets.start_param_sync()
        self.is_under_way = bool(self.ddp)

    def wait(self, weight: torch.nn.Parameter) -> None:
        """Returns when all of `weight` is there."""
        for chunk in self.ddp:
            if self.is_under_way and weight in chunk.param_to_bucket_group:
                chunk.param_to_bucket_group[weight].finish_param_sync(skip_next_bucket_dispatch=True)

    def end(self) -> None:
        """Returns when every weight is there."""
        for chunk in self.ddp if self.is_under_way else ():
            for buckets in chunk.bucket_groups:
                buckets.finish_param_sync(skip_next_bucket_dispatch=True)
        self.is_under_way = False

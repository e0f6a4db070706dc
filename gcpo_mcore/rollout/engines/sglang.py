"""The SGLang engine: servers beside the run or elsewhere, asked by rank 0 for all ranks.

gcpo_mcore/rollout/sglang/ has its parts: processes and their health (fleet), requests (dispatch), weights (push).
"""

from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from gcpo_mcore.errors import UserError
from gcpo_mcore.registry import engines
from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.engine import Request, Weights
from gcpo_mcore.rollout.sglang.config import SglangConfig
from gcpo_mcore.rollout.sglang.dispatch import Dispatch
from gcpo_mcore.rollout.sglang.fleet import Fleet
from gcpo_mcore.rollout.sglang.push import SyncTimes
from gcpo_mcore.rollout.sglang.transports import build_transport
from gcpo_mcore.samples import Sample


@engines.register
class SglangEngine:
    """See the module. Every method is a collective over all ranks; only rank 0 knows the servers."""

    Config = SglangConfig

    def __init__(
        self,
        config: SglangConfig,
        model_folder: str,
        dtype: str,
        stop_token_ids: list[int],
        decode: Callable[[list[int]], str],
    ):
        self.config, self.stop, self.decode = config, sorted(set(stop_token_ids)), decode
        self.vocabulary = _vocabulary(model_folder)
        self.transport = build_transport(config, model_folder)
        self.version = -1
        self.weights: Weights | None = None
        self.times = SyncTimes()
        self.sent_again = 0
        self.fleet: Fleet | None = None
        if dist.get_rank() == 0:
            self.fleet = Fleet(config, model_folder, dtype, Path(config.log_folder))
        dist.barrier()

    def update_weights(self, weights: Weights, version: int) -> None:
        """See `Engine.update_weights`. UserError if no server can be had."""
        self.weights, self.version = weights, version
        self._sync()

    def _sync(self) -> None:
        if self.fleet:
            self.fleet.wake("weights")
        self.times.timed(self.weights, self.version, self.config, self.transport, self.fleet)
        if self.fleet:
            self.fleet.wake("kv_cache", "cuda_graph")
            self.fleet.resting = []

    def generate(self, requests: list[Request], sampling: Sampling) -> list[Sample]:
        """See `Engine.generate`. UserError, naming it, for a token outside the vocabulary: it would kill a server."""
        self._check(requests)
        shares: list[list[Request]] = [[] for _ in range(dist.get_world_size())]
        dist.gather_object(requests, shares if self.fleet else None)
        everything = [request for share in shares for request in share]
        found: dict[int, Sample] = {}
        while not self._ask(everything, found, sampling):
            self._sync()  # every server was lost; those that came back have no weights
        answers = None
        if self.fleet:
            rows = iter(range(len(everything)))
            answers = [[found[next(rows)] for _ in share] for share in shares]
        mine: list[list[Sample]] = [[]]
        dist.scatter_object_list(mine, answers)
        return mine[0]

    def _ask(self, requests: list[Request], found: dict[int, Sample], sampling: Sampling) -> bool:
        """Adds to `found` what the serving servers answer; whether that is all."""
        is_done = True
        if self.fleet:
            missing = [number for number in range(len(requests)) if number not in found]
            if missing and self.fleet.serving:
                dispatch = Dispatch(
                    self.config,
                    self.fleet.serving,
                    [requests[number] for number in missing],
                    sampling,
                    self.stop,
                    self.version,
                    self.decode,
                    self.fleet.lose,
                )
                found.update({missing[number]: sample for number, sample in dispatch.run().items()})
                self.sent_again += dispatch.again
            is_done = len(found) == len(requests)
        shared = [is_done]
        dist.broadcast_object_list(shared)
        return shared[0]

    def _check(self, requests: list[Request]) -> None:
        for request in requests:
            outside = [token for token in request.prompt.token_ids if not 0 <= token < self.vocabulary]
            if outside or not request.prompt.token_ids:
                raise UserError(
                    f"phase sample: prompt {request.prompt.id} has "
                    + (f"token {outside[0]}, the model {self.vocabulary} tokens" if outside else "no tokens")
                )

    def rest(self) -> None:
        """With rollout.memory_saver, the servers' weights and KV cache leave the GPU until the next sync."""
        if self.config.memory_saver:
            if self.fleet:
                self.fleet.rest()
            self.version = -1

    def metrics(self) -> dict[str, float]:
        """Seconds and speed of the syncs, servers lost and started anew, requests sent again; since the last call."""
        shared: list[dict[str, float]] = [{}]
        if self.fleet:
            shared[0] = self.times.take() | self.fleet.take() | {"rollout/sent_again": float(self.sent_again)}
            self.sent_again = 0
        dist.broadcast_object_list(shared)
        return shared[0]

    def close(self) -> None:
        """Ends the servers that the run started."""
        if self.fleet:
            self.fleet.close()


def _vocabulary(model_folder: str) -> int:
    from gcpo_mcore.actor.architecture import read_architecture

    return read_architecture(model_folder).vocabulary

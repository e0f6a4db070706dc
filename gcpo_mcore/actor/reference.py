"""The reference policy of a KL penalty: the starting weights, kept in host memory between uses."""

from dataclasses import replace

import torch

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.base import platform
from gcpo_mcore.batch import Batch


class Reference:
    """The reference policy, made from an actor that still has its starting weights (before a checkpoint is loaded).

    While it scores, the actor's own weights wait in host memory: the device never holds both.
    """

    def __init__(self, actor: Actor):
        self.actor = actor
        self.weights = [_on_host(p) for p in actor.stage().parameters()]
        self._own: list[torch.Tensor] = []

    @torch.no_grad()
    def score(self, batch: Batch) -> torch.Tensor:
        """[B, T] log-probs of the batch under the reference weights; the actor's own are back when it returns.

        RuntimeError while the actor is offloaded.
        """
        parameters = self.actor.stage().parameters()
        self._own = self._own or [_on_host(p) for p in parameters]
        for parameter, own in zip(parameters, self._own, strict=True):
            own.copy_(parameter)
        try:
            for parameter, weight in zip(parameters, self.weights, strict=True):
                parameter.copy_(weight)
            # Its own routers choose: the engine never ran its weights.
            return self.actor.score(replace(batch, routed_experts=[None] * len(batch)))
        finally:
            for parameter, own in zip(parameters, self._own, strict=True):
                parameter.copy_(own)


def _on_host(parameter: torch.Tensor) -> torch.Tensor:
    """A copy in host memory."""
    buffer = platform.host_buffer(parameter.nbytes).view(parameter.dtype).view(parameter.shape)
    return buffer.copy_(parameter.detach())

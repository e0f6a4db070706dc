"""The reference policy of a KL penalty: an adapter's base, or the starting weights in host memory."""

from dataclasses import replace

import torch

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.actor.adapter import adapters, switched_off
from gcpo_mcore.base import platform
from gcpo_mcore.batch import Batch


class Reference:
    """The reference policy, made from an actor that still has its starting weights (before a checkpoint is loaded).

    Where an adapter is trained that is the base, and nothing is kept: the adapter is switched off while it scores.
    Otherwise the actor's own weights wait in host memory meanwhile: the device never holds both.
    """

    def __init__(self, actor: Actor):
        self.actor = actor
        self.is_base = bool(adapters(actor.stage().chunks))
        self.weights = [] if self.is_base else [_on_host(p) for p in actor.stage().parameters()]
        self._own: list[torch.Tensor] = []

    @torch.no_grad()
    def score(self, batch: Batch) -> torch.Tensor:
        """[B, T] log-probs of the batch under the reference weights; the actor's own are back when it returns.

        RuntimeError while the actor is offloaded.
        """
        # Its own routers choose: the engine never ran its weights.
        batch = replace(batch, routed_experts=[None] * len(batch))
        if self.is_base:
            with switched_off(self.actor.stage().chunks):
                return self.actor.score(batch)
        parameters = self.actor.stage().parameters()
        self._own = self._own or [_on_host(p) for p in parameters]
        for parameter, own in zip(parameters, self._own, strict=True):
            own.copy_(parameter)
        try:
            for parameter, weight in zip(parameters, self.weights, strict=True):
                parameter.copy_(weight)
            return self.actor.score(batch)
        finally:
            for parameter, own in zip(parameters, self._own, strict=True):
                parameter.copy_(own)


def _on_host(parameter: torch.Tensor) -> torch.Tensor:
    """A copy in host memory."""
    buffer = platform.host_buffer(parameter.nbytes).view(parameter.dtype).view(parameter.shape)
    return buffer.copy_(parameter.detach())

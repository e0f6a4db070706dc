"""The reference policy of a KL penalty: the starting weights, kept on the CPU between uses."""

import torch

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.batch import Batch


class Reference:
    """Made from an actor that still has its starting weights (before a checkpoint is loaded)."""

    def __init__(self, actor: Actor):
        self.actor = actor
        self.weights = [p.detach().cpu().clone() for p in actor.chunks.parameters()]

    @torch.no_grad()
    def score(self, batch: Batch) -> torch.Tensor:
        """[B, T] log-probs of the batch under the reference weights; the actor's own are back when it returns."""
        parameters = list(self.actor.chunks.parameters())
        own = [p.detach().clone() for p in parameters]
        try:
            for parameter, weight in zip(parameters, self.weights, strict=True):
                parameter.copy_(weight)
            return self.actor.score(batch)
        finally:
            for parameter, weight in zip(parameters, own, strict=True):
                parameter.copy_(weight)

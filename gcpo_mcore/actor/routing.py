"""Routing replay: tokens go to the experts to which the rollout engine sent them.

A router near a tie may choose other experts than the engine did, in other arithmetic or under other kernels; then the
log-probs of the same weights differ by far more than rounding. Ma et al., "Stabilizing MoE reinforcement learning by
aligning training and inference routers" (arXiv:2510.11370). The weights of the experts are the router's own, so that
it gets its gradient.
"""

from collections import deque
from collections.abc import Callable

import torch
from megatron.core.tensor_parallel import scatter_to_sequence_parallel_region
from megatron.core.transformer.moe.router import TopKRouter


class Replay:
    """Stands in a router as megatron's `router_replay`: one layer's experts of the micro-batch that passes it.

    A layer that is recomputed is passed twice, the second time perhaps after other micro-batches: `recomputes` keeps
    what it needs, in the order of the first passes, which is that of the second ones.
    """

    def __init__(self, router: TopKRouter, recomputes: bool):
        self.router, self.recomputes = router, recomputes
        self.current: torch.Tensor | None = None
        self.again: deque[torch.Tensor | None] = deque()

    def get_replay_topk(
        self, scores: torch.Tensor, topk: int, num_groups: int | None, group_topk: int | None, choose: Callable
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[n, topk] scores and numbers of the experts of n tokens, from `scores` [n, experts]; called by the router."""
        values, own = choose(scores, topk, num_groups=num_groups, group_topk=group_topk)
        experts = self._experts()
        if experts is None:
            return values, own
        chosen = torch.where(experts >= 0, experts, own)
        return scores.gather(1, chosen), chosen

    def _experts(self) -> torch.Tensor | None:
        if not (self.recomputes and self.router.training):
            return self.current
        if torch.is_grad_enabled():  # the second pass
            return self.again.popleft()
        self.again.append(self.current)
        return self.current


def install(model: torch.nn.Module) -> list[Replay]:
    """Gives every router of `model` a Replay; none in a dense model."""
    routers = [module for module in model.modules() if isinstance(module, TopKRouter)]
    replays = [Replay(router, router.config.recompute_granularity is not None) for router in routers]
    for one in replays:
        setattr(one.router, "router_replay", one)  # noqa: B010 (megatron's type is its own class, kept in a global list)
    return replays


def replay(replays: list[Replay], experts: torch.Tensor | None, is_sequence_parallel: bool) -> None:
    """Sets what the next pass routes by: `experts` [b, s, layers of the model, topk] int64, -1 where the router is to
    choose, or None: everywhere."""
    for one in replays:
        one.current = None
        if experts is not None:
            assert one.router.layer_number is not None  # its layer has told it
            mine = experts[:, :, one.router.layer_number - 1].transpose(0, 1)  # [s, b, topk], as the hidden states
            one.current = (scatter_to_sequence_parallel_region(mine) if is_sequence_parallel else mine).flatten(0, 1)

"""The log-probs before a step's updates: whose they are, and whether a pass of their own is needed for them."""

import torch

from gcpo_mcore.actor.actor import Actor
from gcpo_mcore.batch import Batch
from gcpo_mcore.run.config import RunConfig


def needs_pass(config: RunConfig) -> bool:
    """Whether the actor must score the rows of a step before its updates."""
    source = config.trainer.old_logp
    is_read = config.trainer.updates_per_step > 1 or config.algorithm.needs_old_logp
    return source == "score" or (source == "auto" and is_read)


def old_logprobs(config: RunConfig, actor: Actor, batch: Batch) -> torch.Tensor | None:
    """[b, T] the log-probs of this rank's rows before the step's updates, by `trainer.old_logp`; None if those that
    the step's only update computes anyway are the same, and nothing reads them earlier. A collective over all ranks."""
    if config.trainer.old_logp == "rollout":
        return _of_engine(actor, batch)
    return actor.score(batch) if needs_pass(config) else None


def _of_engine(actor: Actor, batch: Batch) -> torch.Tensor:
    """Those of the engine; the actor's for golden answers, which the engine never sampled."""
    return torch.where(batch.is_golden.unsqueeze(1), golden_logprobs(actor, batch), batch.rollout_logp)


def golden_logprobs(actor: Actor, batch: Batch) -> torch.Tensor:
    """[b, T] the present log-probs of the golden answers among this rank's rows; 0 for others. A collective."""
    logp = torch.zeros_like(batch.mask)
    if bool(batch.table.is_golden.any()):  # the same on every rank
        golden = batch.is_golden.nonzero().squeeze(1)
        logp[golden] = actor.score(batch.choose(golden.tolist()))
    return logp

"""One pass of a rank's micro-batches through the model: megatron-core's pipeline schedule with log-probs at its end.

    LogProbPass(stage, head).run(micro_batches)         # log-probs, no gradients
    GradientPass(stage, head, loss).run(micro_batches)  # gradients in their buffers, log-probs, what the loss adds up

The last stage has the results; the others get empty lists.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Generic, TypeVar

import torch
from megatron.core.distributed import DistributedDataParallel
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import reduce_from_tensor_model_parallel_region

from gcpo_mcore.actor import groups
from gcpo_mcore.actor.gathering import WeightGather
from gcpo_mcore.actor.logprobs import token_logprobs
from gcpo_mcore.actor.microbatch import MicroBatch, Rows
from gcpo_mcore.actor.policy_model import PolicyModel
from gcpo_mcore.actor.stage import Stage
from gcpo_mcore.base import platform
from gcpo_mcore.batch import Batch, UpdateBatch

Sums = Mapping[str, tuple[float | torch.Tensor, float | torch.Tensor]]  # name -> value and weight, each to be added up
LossFunction = Callable[[torch.Tensor, torch.Tensor, UpdateBatch], tuple[torch.Tensor, Sums]]
RowsLogp = tuple[list[int], torch.Tensor]  # the rows' numbers in the rank's batch, their log-probs [r, T]
Result = TypeVar("Result")


@dataclass(frozen=True)
class LogProbHead:
    """Log-probs and entropy of a micro-batch's responses, from the last stage's hidden states."""

    vocabulary: int
    temperature: float
    logits_per_chunk: int
    gather: WeightGather

    def __call__(self, model: PolicyModel, hidden: torch.Tensor, micro: MicroBatch) -> tuple[torch.Tensor, ...]:
        """Maps hidden [s, b, h] to log-probs and entropy, [r, T] each, of the whole rows on every context rank."""
        self.gather.wait(model.head_weight)
        logp, entropy = token_logprobs(
            model.choose(hidden, micro.source), model.head_weight, micro.targets,
            self.vocabulary, self.temperature, groups.tensor_group(), self.logits_per_chunk,
        )  # fmt: skip
        both = micro.to_rows(logp), micro.to_rows(entropy)
        return both if groups.context_group().size() == 1 else _join_context(torch.stack(both)).unbind()


class MicroBatchPass(ABC, Generic[Rows, Result]):
    """A pass over micro-batches; a subclass says what becomes of their log-probs. A collective over all ranks."""

    is_forward_only: ClassVar[bool]

    def __init__(self, stage: Stage, head: LogProbHead):
        self.stage, self.head = stage, head

    def run(self, micro_batches: list[MicroBatch[Rows]]) -> list[Result]:
        """One result for each micro-batch on the last stage, none on the others."""
        for chunk in self.stage.ddp:
            chunk.train(not self.is_forward_only)
        iterators = [iter(micro_batches) for _ in self.stage.chunks]
        rows, tokens = micro_batches[0].tokens.shape
        with platform.megatron():
            return get_forward_backward_func()(
                forward_step_func=self._forward,
                data_iterator=iterators if len(iterators) > 1 else iterators[0],
                model=[*self.stage.ddp],
                num_microbatches=len(micro_batches),
                seq_length=tokens * groups.context_group().size(),  # megatron divides it by the ranks itself
                micro_batch_size=rows,
                forward_only=self.is_forward_only,
                collect_non_loss_data=self.is_forward_only,
            )

    @abstractmethod
    def finish(self, micro: MicroBatch[Rows], logp: torch.Tensor, entropy: torch.Tensor) -> object:
        """What megatron-core's schedule expects of a micro-batch, from its log-probs and entropy, [r, T] each."""

    def _forward(
        self, micro_batches: Iterator[MicroBatch[Rows]], model: DistributedDataParallel
    ) -> tuple[torch.Tensor, Callable[..., object]]:
        micro = next(micro_batches)
        output = model(
            micro.tokens, micro.positions, attention_mask=None, packed_seq_params=micro.packed,
            stop_at_hidden=True, experts=micro.experts,
        )  # fmt: skip
        return output, partial(self._finish, micro)

    def _finish(self, micro: MicroBatch[Rows], hidden: torch.Tensor, non_loss_data: bool = False) -> object:
        logp, entropy = self.head(self.stage.chunks[-1], hidden, micro)
        return self.finish(micro, logp, entropy)


class LogProbPass(MicroBatchPass[Batch, RowsLogp]):
    """Gives the rows' log-probs."""

    is_forward_only = True

    @torch.no_grad()
    def run(self, micro_batches: list[MicroBatch[Batch]]) -> list[RowsLogp]:
        """See MicroBatchPass."""
        return super().run(micro_batches)

    def finish(self, micro: MicroBatch[Batch], logp: torch.Tensor, entropy: torch.Tensor) -> RowsLogp:
        """The micro-batch's result."""
        return micro.numbers, logp


class GradientPass(MicroBatchPass[UpdateBatch, tuple[RowsLogp, Sums]]):
    """Adds the loss's gradients to their buffers, reduced over the ranks; gives log-probs and the loss's sums."""

    is_forward_only = False

    def __init__(self, stage: Stage, head: LogProbHead, loss: LossFunction):
        super().__init__(stage, head)
        self.loss = loss

    def finish(
        self, micro: MicroBatch[UpdateBatch], logp: torch.Tensor, entropy: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[RowsLogp, Sums]]:
        """The loss, a token count and the micro-batch's result."""
        loss, sums = self.loss(logp, entropy, micro.rows)
        # The token count that megatron would divide by is not used: the loss is a sum already.
        result = ((micro.numbers, logp.detach()), sums)
        return loss, torch.ones((), dtype=torch.int, device=loss.device), result


def _join_context(values: torch.Tensor) -> torch.Tensor:
    """The sum of the context ranks' values, each of which has zeros where another has tokens.

    All of them then work out the same loss of whole rows, so a rank's own gradient is whole: it is not summed.
    """
    return reduce_from_tensor_model_parallel_region(values, group=groups.context_group())

"""The actor: scores batches, updates the weights, exports them. Built on megatron-core's pipeline schedules."""

from collections.abc import Iterable, Iterator, Mapping

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from gcpo_mcore.actor import groups, hf_mapping
from gcpo_mcore.actor.adapter import Merge
from gcpo_mcore.actor.adapter_places import whole_factors
from gcpo_mcore.actor.backend import choose_backend
from gcpo_mcore.actor.config import ActorConfig, ModelConfig, OptimizerConfig, ParallelConfig
from gcpo_mcore.actor.cutting import Cut, split
from gcpo_mcore.actor.forward_pass import GradientPass, LogProbHead, LogProbPass, LossFunction, RowsLogp
from gcpo_mcore.actor.gathering import WeightGather
from gcpo_mcore.actor.layout import Layout
from gcpo_mcore.actor.logprobs import logits_at_a_time
from gcpo_mcore.actor.microbatch import MicroBatch, Rows
from gcpo_mcore.actor.offload import Offloader
from gcpo_mcore.actor.optimizer import Stepper, learning_rate
from gcpo_mcore.actor.stage import Stage, build_stage
from gcpo_mcore.base import platform
from gcpo_mcore.base.collectives import Alone, GroupPeers, Peers, from_every_rank
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.batch import Batch, UpdateBatch
from gcpo_mcore.hf.architecture import Architecture
from gcpo_mcore.hf.peft import LoraFactors

PLAIN = ActorConfig(backend="local", offload="none")


class Actor:
    """The policy on this rank's share of the layout. Every method is a collective over all ranks.

    `version` counts the updates since the start of the run: the weights' name on samples.
    Between `offload` and `onload` the device is free for others: nothing can be scored or updated then, nor read.
    """

    def __init__(
        self,
        model: ModelConfig,
        arch: Architecture,
        parallel: ParallelConfig,
        layout: Layout,
        optimizer: OptimizerConfig,
        temperature: float,
        sequences_per_microbatch: int,
        tokens_per_microbatch: int | None,
        settings: ActorConfig = PLAIN,
        shares_prompts: bool = False,
    ):
        self.arch, self.layout, self.temperature = arch, layout, temperature
        row_multiple = 2 * layout.context if layout.context > 1 else 1  # two pieces a rank
        self.cut = Cut(
            sequences=sequences_per_microbatch,
            tokens=tokens_per_microbatch,
            shares_prompts=shares_prompts and layout.context == 1,  # a rank has a part of each row
            multiple_of=row_multiple * (layout.tensor if parallel.sequence else 1),
            row_multiple_of=row_multiple,
            # Chunks take turns with as many micro-batches as there are stages.
            count_multiple_of=layout.pipeline if layout.virtual_pipeline > 1 else 1,
            is_one_shape=layout.pipeline > 1,
            device=platform.device(),
        )
        self.device = platform.device()
        self.logits_per_chunk = logits_at_a_time(self.device)
        self.hf_folder, self.lora = model.path, model.lora
        self.version = 0
        self.optimizer_config = optimizer
        backend = choose_backend(settings.backend, arch, has_adapter=model.lora is not None)
        self._stage = build_stage(model, arch, parallel, layout, optimizer, backend)
        self._gather = WeightGather(self._stage.ddp)
        self._offloader = Offloader(settings.offload, self._stage)
        self.stepper = Stepper(optimizer, self._stage.optimizer)
        self.peers: Peers = GroupPeers(groups.data_group(), self.device) if layout.data > 1 else Alone()

    # --- memory ------------------------------------------------------------------------------------------------

    def offload(self, keeps_weights: bool = False) -> None:
        """Moves to host memory what `actor.offload` names, until `onload`, and gives up the memory that torch keeps.

        With `keeps_weights` all but the weights: those that an engine is to be given, and takes room for.
        """
        self._gather.end()
        self._offloader.offload(keeps_weights)

    def onload(self) -> None:
        """Moves it back to the device. Nothing happens if it is there; weights under way stay under way."""
        self._offloader.onload()

    def stage(self) -> Stage:
        """This rank's stage, good until the next `update` or `offload`. Waits for weights under way; moves nothing.

        RuntimeError while the actor is offloaded.
        """
        self._check_on_device()
        self._gather.end()
        return self._stage

    def is_finite(self) -> bool:
        """Whether every weight is a finite number. Brings an offloaded actor back."""
        self.onload()
        mine = all(bool(weight.isfinite().all()) for weight in self.stage().parameters())
        return all(from_every_rank(mine))

    def _check_on_device(self) -> None:
        if self._offloader.is_away:
            raise RuntimeError("the actor is in host memory: onload() comes first")

    # --- log-probs ---------------------------------------------------------------------------------------------

    def score(self, batch: Batch) -> torch.Tensor:
        """[b, T] log-probs of the responses of this rank's rows under the present weights; zeros on padding.

        RuntimeError while the actor is offloaded.
        """
        self._check_on_device()  # not `stage`: weights still under way are waited for layer by layer
        return self._by_row(batch, LogProbPass(self._stage, self._head()).run(self._micro_batches(batch)))

    def _by_row(self, batch: Batch, found: Iterable[RowsLogp]) -> torch.Tensor:
        """[b, T] the log-probs that the last stage has `found`, on the CPU and on all stages."""
        out = torch.zeros_like(batch.mask)
        for numbers, logp in found:
            out[numbers] = logp.cpu()
        return self._from_last_stage(out)

    def _from_last_stage(self, values: torch.Tensor) -> torch.Tensor:
        """What the last of this rank's pipeline stages has, on all of them."""
        if self.layout.pipeline == 1:
            return values
        there = values.to(self.device)
        dist.broadcast(there, group_src=self.layout.pipeline - 1, group=groups.pipeline_group())
        return there.to(values.device)

    # --- updates -----------------------------------------------------------------------------------------------

    def update(
        self, batch: UpdateBatch, loss: LossFunction, update: int, updates: int
    ) -> tuple[dict[str, float], torch.Tensor]:
        """One optimizer step on `batch`; `update` of `updates` sets the learning rate.

        Returns metrics, and [b, T] log-probs under the weights before it, as `score` would give them.
        """
        metrics, logp = self.backward(batch, loss)
        metrics |= self.stepper.step(learning_rate(self.optimizer_config, update, updates))
        self._gather.begin()
        self.version += 1
        return metrics, logp

    def backward(self, batch: UpdateBatch, loss: LossFunction) -> tuple[dict[str, float], torch.Tensor]:
        """Gradients of the batch's loss, summed over micro-batches and ranks, left in the gradient buffers.

        Returns the loss's metrics, means over all rows (or sums, where the weight is 0), and [b, T] log-probs.
        RuntimeError while the actor is offloaded.
        """
        self._check_on_device()
        for chunk in self._stage.ddp:
            chunk.zero_grad_buffer()
        found = GradientPass(self._stage, self._head(), loss).run(self._micro_batches(batch))
        sums = _add_up(sums for _, sums in found)
        merged = _add_up(from_every_rank(sums if _speaks() else {}))
        metrics = {name: value / weight if weight else value for name, (value, weight) in merged.items()}
        return metrics, self._by_row(batch, (rows for rows, _ in found))

    # --- weights -----------------------------------------------------------------------------------------------

    def export(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(Hugging Face name, full tensor) of every weight, an adapter merged into it, streamed to every rank.

        Brings an offloaded actor's weights back, and nothing else: an engine may ask for them again in its own turn.
        """
        self._offloader.onload(only_weights=True)
        self._gather.end()
        return hf_mapping.export(self._stage.chunks, self.arch, Merge(self._stage.chunks))

    def adapter(self) -> LoraFactors:
        """The adapter alone, whole on rank 0. Brings weights back as `export`. UserError without model/adapter=lora."""
        if self.lora is None:
            raise UserError("rollout.adapter_folder sends an adapter: model/adapter=none has none")
        self._offloader.onload(only_weights=True)
        self._gather.end()
        factors = whole_factors(self._stage.chunks)
        return LoraFactors(factors, self.lora.rank, self.lora.alpha, self.lora.rslora)

    def _head(self) -> LogProbHead:
        return LogProbHead(self.arch.vocabulary, self.temperature, self.logits_per_chunk, self._gather)

    def _micro_batches(self, batch: Rows) -> list[MicroBatch[Rows]]:
        """This rank's, each cut to its context share."""
        micro_batches = split(batch, self.cut)
        if self.layout.context == 1:
            return micro_batches
        rank = parallel_state.get_context_parallel_rank()
        return [micro.context_share(rank, self.layout.context) for micro in micro_batches]


def _add_up(shares: Iterable[Mapping]) -> dict[str, tuple[float, float]]:
    """Values and weights by name, summed in the order of `shares`."""
    total: dict[str, tuple[float, float]] = {}
    for share in shares:
        for name, (value, weight) in share.items():
            values, weights = total.get(name, (0.0, 0.0))
            total[name] = (values + float(value), weights + float(weight))
    return total


def _speaks() -> bool:
    """Whether this rank reports what every rank of its tensor and context groups knows."""
    return parallel_state.get_tensor_model_parallel_rank() == parallel_state.get_context_parallel_rank() == 0

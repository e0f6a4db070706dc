"""The actor: scores batches, takes updates, exports weights. Built on megatron-core's pipeline schedules."""

from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import reduce_from_tensor_model_parallel_region

from gcpo_mcore.actor import hf_mapping
from gcpo_mcore.actor.backend import choose_backend
from gcpo_mcore.actor.config import ActorConfig, ModelConfig, OptimizerConfig, ParallelConfig
from gcpo_mcore.actor.gathering import WeightGather
from gcpo_mcore.actor.layout import Layout
from gcpo_mcore.actor.logprobs import LOGITS_PER_CHUNK, token_logprobs
from gcpo_mcore.actor.microbatch import MicroBatch, split
from gcpo_mcore.actor.model import build_chunks, wrap_data_parallel
from gcpo_mcore.actor.offload import Offloader
from gcpo_mcore.actor.optimizer import Stepper, build_optimizer, learning_rate
from gcpo_mcore.base import platform
from gcpo_mcore.batch import Batch
from gcpo_mcore.hf.architecture import Architecture

PLAIN = ActorConfig(backend="local", offload="none")
LossFunction = Callable[[torch.Tensor, torch.Tensor, Batch], tuple[torch.Tensor, dict]]


class Actor:
    """The policy on this rank's share of the layout. Every method is a collective over all ranks.

    `version` counts the updates since the start of the run: the weights' name on samples.
    After `offload` the device is free for others; whoever reaches for `chunks`, `ddp` or `optimizer` has them back.
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
    ):
        self.arch, self.layout, self.temperature = arch, layout, temperature
        self.sequences_per_microbatch, self.tokens_per_microbatch = sequences_per_microbatch, tokens_per_microbatch
        self.length_multiple = layout.tensor if parallel.sequence else 1
        self.row_multiple = 2 * layout.context if layout.context > 1 else 1  # two pieces a rank
        self.length_multiple *= self.row_multiple
        self.logits_per_chunk = LOGITS_PER_CHUNK
        self.device = platform.device()
        dtype = getattr(torch, model.dtype)
        self.hf_folder = model.path
        self.version = 0

        self._chunks = build_chunks(arch, parallel, layout, dtype, choose_backend(settings.backend, arch))
        hf_mapping.mark_tensor_parallel(self._chunks, arch)
        hf_mapping.load(self._chunks, arch, hf_mapping.HfWeights(model.path, arch))
        self._ddp = [wrap_data_parallel(chunk, parallel) for chunk in self._chunks]
        self.optimizer_config = optimizer
        self._optimizer = build_optimizer(optimizer, parallel, self._ddp, dtype)
        self._gather = WeightGather(self._ddp)
        self._offloader = Offloader(settings.offload, self._ddp, self._optimizer)
        self.stepper = Stepper(optimizer, self._optimizer)
        no_sync = [chunk.no_sync for chunk in self._ddp]
        for chunk in self._chunks:
            if parallel.overlap:  # megatron leaves the sums to the last micro-batch
                chunk.config.no_sync_func = no_sync if len(no_sync) > 1 else no_sync[0]
            chunk.config.finalize_model_grads_func = _finalize_sums
            chunk.config.grad_scale_func = self._optimizer.scale_loss

    # --- memory ------------------------------------------------------------------------------------------------

    def offload(self) -> None:
        """Moves to host memory what `actor.offload` names, until it is used again."""
        self._gather.end()
        self._offloader.offload()

    def _complete(self) -> None:
        """Everything back on the device, and every weight gathered."""
        self._offloader.onload()
        self._gather.end()

    @property
    def chunks(self) -> torch.nn.ModuleList:
        """This rank's stage, on the device."""
        self._complete()
        return self._chunks

    @property
    def ddp(self) -> list[DistributedDataParallel]:
        """The chunks with their gradient buffers, on the device."""
        self._complete()
        return self._ddp

    @property
    def optimizer(self) -> MegatronOptimizer:
        """megatron-core's optimizer with its state, on the device."""
        self._complete()
        return self._optimizer

    # --- log-probs ---------------------------------------------------------------------------------------------

    def score(self, batch: Batch) -> torch.Tensor:
        """[B, T] log-probs of the batch's responses under the present weights, on every rank; zeros on padding."""
        mine: list[tuple[list[int], torch.Tensor]] = []

        def keep(logp, entropy, rows):
            return logp.sum() * 0, {}

        def collect(micro: MicroBatch, logp: torch.Tensor) -> None:
            mine.append((micro.numbers, logp.cpu()))

        with torch.no_grad():
            self._run(batch, keep, forward_only=True, collect=collect)
        if not _speaks():
            mine = []
        everyone = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, mine)
        out = torch.zeros_like(batch.mask)
        for share in everyone:
            for numbers, logp in share:
                out[numbers] = logp
        return out

    # --- updates -----------------------------------------------------------------------------------------------

    def update(self, batch: Batch, loss: LossFunction, update: int, updates: int) -> dict[str, float]:
        """One optimizer step on `batch`; `update` of `updates` sets the learning rate. Returns metrics."""
        metrics = self.backward(batch, loss)
        metrics |= self.stepper.step(learning_rate(self.optimizer_config, update, updates))
        self._gather.begin()
        self.version += 1
        return metrics

    def backward(self, batch: Batch, loss: LossFunction) -> dict[str, float]:
        """Gradients of the batch's loss, summed over micro-batches and ranks, left in the gradient buffers."""
        self._offloader.onload()  # not `_complete`: weights still under way are waited for layer by layer
        for chunk in self._ddp:
            chunk.zero_grad_buffer()
        sums = self._run(batch, loss, forward_only=False)
        return self._reduce(sums)

    def _run(self, batch: Batch, loss: LossFunction, forward_only: bool, collect=None) -> list[dict]:
        self._offloader.onload()
        micro_batches = split(
            batch,
            rank=parallel_state.get_data_parallel_rank(),
            ranks=self.layout.data,
            sequences=self.sequences_per_microbatch,
            tokens=self.tokens_per_microbatch,
            is_one_shape=self.layout.pipeline > 1,
            multiple_of=self.length_multiple,
            row_multiple_of=self.row_multiple,
            # Chunks take turns with as many micro-batches as there are stages.
            count_multiple_of=self.layout.pipeline if len(self._chunks) > 1 else 1,
            device=self.device,
        )
        seq_length = micro_batches[0].tokens.shape[1]  # before it is cut: megatron divides it by the ranks itself
        if self.layout.context > 1:
            rank = parallel_state.get_context_parallel_rank()
            micro_batches = [micro.part(rank, self.layout.context) for micro in micro_batches]

        last = self._chunks[-1]

        def forward_step(iterator, model):
            micro = next(iterator)
            output = model(
                micro.tokens, micro.positions, attention_mask=None, packed_seq_params=micro.packed,
                stop_at_hidden=True, experts=micro.experts,
            )  # fmt: skip

            def finish(hidden):  # [s, b, h] on the last stage
                self._gather.wait(last.head_weight)
                logp, entropy = token_logprobs(
                    last.choose(hidden, micro.source), last.head_weight, micro.targets,
                    self.arch.vocabulary, self.temperature, parallel_state.get_tensor_model_parallel_group(),
                    self.logits_per_chunk,
                )  # fmt: skip
                logp, entropy = _join_context(torch.stack([micro.to_rows(logp), micro.to_rows(entropy)]))
                if collect is not None:
                    collect(micro, logp)
                total, sums = loss(logp, entropy, micro.rows)
                # The token count that megatron would divide by is not used: the loss is a sum already.
                return total, torch.ones((), dtype=torch.int, device=total.device), sums

            return output, finish

        for chunk in self._ddp:
            chunk.train(not forward_only)
        iterators = [iter(micro_batches) for _ in self._chunks]
        with platform.megatron():
            return get_forward_backward_func()(
                forward_step_func=forward_step,
                data_iterator=iterators if len(iterators) > 1 else iterators[0],
                model=self._ddp,
                num_microbatches=len(micro_batches),
                seq_length=seq_length,
                micro_batch_size=micro_batches[0].tokens.shape[0],
                forward_only=forward_only,
            )

    def _reduce(self, sums: list[dict]) -> dict[str, float]:
        """Sums of all micro-batches and ranks -> means (or sums, where the weight is 0)."""
        total: dict[str, list[float]] = {}
        for micro in sums:
            for name, (value, weight) in micro.items():
                entry = total.setdefault(name, [0.0, 0.0])
                entry[0] += float(value)
                entry[1] += float(weight)
        if not _speaks():
            total = {}
        everyone = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, total)
        merged: dict[str, list[float]] = {}
        for share in everyone:
            for name, (value, weight) in share.items():
                entry = merged.setdefault(name, [0.0, 0.0])
                entry[0] += value
                entry[1] += weight
        return {name: value / weight if weight else value for name, (value, weight) in merged.items()}

    # --- weights -----------------------------------------------------------------------------------------------

    def export(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(Hugging Face name, full tensor) of every weight, streamed to every rank."""
        return hf_mapping.export(self.chunks, self.arch)


def _speaks() -> bool:
    """Whether this rank reports what every rank of its tensor and context groups knows."""
    return parallel_state.get_tensor_model_parallel_rank() == parallel_state.get_context_parallel_rank() == 0


def _join_context(values: torch.Tensor) -> torch.Tensor:
    """The sum of the context ranks' values, each of which has zeros where another has tokens.

    All of them then work out the same loss of whole rows, so a rank's own gradient is whole: it is not summed.
    """
    return reduce_from_tensor_model_parallel_region(values, group=parallel_state.get_context_parallel_group())


def _finalize_sums(model, num_tokens=None, **kwargs) -> None:
    """megatron's gradient reductions without its division by a token count: our losses are sums."""
    finalize_model_grads(model, None, **kwargs)

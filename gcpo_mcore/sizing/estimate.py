"""What a run needs of a device's memory, phase by phase, from its configuration and the model's config.json alone.

    estimate = estimate_run(load_config(["model.path=...", "parallel.tensor=2"]), processes=8)
    estimate.peak_gib, estimate.fits(80.0)

Parameters, gradients and optimizer state are exact. Activations, logits and the engine follow the code's own shapes;
the longest prompts and responses are assumed everywhere. Nothing is built and no weights are read.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from gcpo_mcore.actor.adapter_check import check_adapter
from gcpo_mcore.actor.layout import Layout, check_layout
from gcpo_mcore.actor.short_attention import is_short
from gcpo_mcore.hf.architecture import Architecture, read_architecture
from gcpo_mcore.hf.hub import config_folder
from gcpo_mcore.run.config import RunConfig
from gcpo_mcore.sizing.activations import Pass, activation_bytes, head_bytes, layer_bytes
from gcpo_mcore.sizing.buffers import FP32, Static, static_bytes

GIB = 2**30
PHASES = ("rollout", "score", "update", "step", "sync", "checkpoint")


InPhase = tuple[int, int, int, int, int, int]  # bytes in each of PHASES


@dataclass(frozen=True)
class Component:
    """Something that needs memory, and how much in each phase."""

    name: str
    in_phase: InPhase


@dataclass(frozen=True)
class Estimate:
    """Memory of the rank that needs the most: a rank of pipeline `stage`. `host` is what it keeps in host memory."""

    arch: Architecture
    layout: Layout
    stage: int
    components: list[Component]
    host: list[tuple[str, int]]

    @property
    def phase_gib(self) -> dict[str, float]:
        """GiB on the device by phase."""
        return {name: sum(one.in_phase[i] for one in self.components) / GIB for i, name in enumerate(PHASES)}

    @property
    def peak_gib(self) -> float:
        """GiB on the device in the phase that needs the most."""
        return max(self.phase_gib.values())

    def fits(self, device_gib: float) -> bool:
        """Whether every phase stays within `device_gib`."""
        return self.peak_gib <= device_gib

    def rows(self) -> list[dict[str, object]]:
        """A table for monitor.tables.print_results, in GiB; columns 'component' and PHASES."""
        rows: list[dict[str, object]] = [
            {"component": one.name, **{p: n / GIB for p, n in zip(PHASES, one.in_phase, strict=True) if n}}
            for one in self.components
            if any(one.in_phase)
        ]
        return [*rows, {"component": "all", **self.phase_gib}]


def estimate_run(config: RunConfig, processes: int, with_cuda: bool = True) -> Estimate:
    """The estimate for a run on `processes` processes. UserError for a model or layout that is not carried.

    `with_cuda`: as on GPUs, where torch has fused norms and steps all parameters at a time.
    """
    arch = read_architecture(config_folder(config.model.path))
    layout = check_layout(config.parallel, arch, processes)
    if config.model.lora:
        check_adapter(config.model.lora, arch, layout.tensor)
    stages = [_of_stage(config, arch, layout, stage, with_cuda) for stage in range(layout.pipeline)]
    return max(stages, key=lambda estimate: estimate.peak_gib)


def update_pass(config: RunConfig, layout: Layout, with_cuda: bool) -> Pass:
    """The largest micro-batch of an update, every sequence as long as it may be."""
    trainer = config.trainer
    response = config.rollout.sampling.max_response_tokens
    length = config.data.max_prompt_tokens + response
    rows = trainer.prompts_per_step * max(config.samples_per_prompt, 1) // trainer.updates_per_step
    per_rank = -(-rows // layout.data)
    device, dtype = "cuda" if with_cuda else "cpu", getattr(torch, config.model.dtype)
    if trainer.tokens_per_microbatch:
        sequences = max(trainer.tokens_per_microbatch // length, 1)
        tokens = trainer.tokens_per_microbatch
    else:
        sequences = trainer.sequences_per_microbatch
        tokens = sequences * length
    return Pass(
        tokens,
        response_tokens=sequences * response,
        micro_batches=-(-per_rank // sequences),
        is_packed=trainer.tokens_per_microbatch is not None,
        with_cuda=with_cuda,
        adapter=config.model.lora,
        scores=tokens * length if layout.context == 1 and is_short(device, dtype, length) else 0,
    )


def _of_stage(config: RunConfig, arch: Architecture, layout: Layout, stage: int, with_cuda: bool) -> Estimate:
    parallel, b = config.parallel, torch.finfo(getattr(torch, config.model.dtype)).bits // 8
    held = static_bytes(arch, layout, b, parallel.distributed_optimizer, stage, adapter=config.model.lora)
    p = update_pass(config, layout, with_cuda)
    is_last = stage == layout.pipeline - 1
    whole_layer = layer_bytes(arch, parallel, layout, b, p, "none")
    activations = activation_bytes(arch, parallel, layout, b, p, stage)
    head = [head_bytes(arch, layout, b, p, is_backward) if is_last else 0 for is_backward in (False, True)]
    step = held.stepped * FP32 if with_cuda else 0  # AdamW's square roots, of all parameters at once
    engine = config.rollout.memory(arch, config.data.max_prompt_tokens, b)
    merge = _merged(arch, layout, b) if config.model.lora and not config.rollout.sends_adapter else 0
    keeps_cache = engine.keeps_cache and not engine.rests
    away = config.actor.offload
    return Estimate(
        arch=arch,
        layout=layout,
        stage=stage,
        components=[
            Component("parameters", _always_but(held.parameters, in_rollout=away != "all")),
            Component("gradients, fp32", _always_but(held.gradients, away == "none", away == "none")),
            Component("optimizer state", _always_but(held.optimizer, away == "none", away == "none")),
            # Without a backward pass a layer's activations are gone when the next one starts.
            Component("activations", _only(score=whole_layer, update=activations)),
            # The gradients of a layer's activations are as large as these; the last stage starts with the head's.
            Component(
                "log-probs' logits, gradients on their way", _only(score=head[0], update=max(head[1], whole_layer))
            ),
            Component("optimizer step", _only(step=step)),
            Component("weights on their way", _only(sync=engine.on_the_way + _gathered(arch, layout, b) + merge)),
            Component("engine: weights", _always(engine.weights) if not engine.rests else _turn(engine.weights, True)),
            Component("engine: KV cache", _always(engine.cache) if keeps_cache else _turn(engine.cache, False)),
            Component("engine: prompts or draws at work", _turn(engine.working, False)),
            Component("engine: what stays", _always(engine.stays)),
        ],
        host=_host(config, held, pinned if with_cuda else sum),
    )


def _always_but(size: int, in_rollout: bool = True, in_sync: bool = True) -> InPhase:
    """What the actor holds in every phase, but for those in which it may be away."""
    return size if in_rollout else 0, size, size, size, size if in_sync else 0, size


def _always(size: int) -> InPhase:
    return _always_but(size)


def _turn(size: int, in_sync: bool) -> InPhase:
    """What the engine holds in its turn, and at the moment of a sync or not."""
    return size, 0, 0, 0, size if in_sync else 0, 0


def _only(score: int = 0, update: int = 0, step: int = 0, sync: int = 0) -> InPhase:
    return 0, score, update, step, sync, 0


def _gathered(arch: Architecture, layout: Layout, dtype_bytes: int) -> int:
    """The largest tensor, put together of what the ranks have of it."""
    is_whole = layout.tensor == layout.pipeline == layout.expert == 1
    return 0 if is_whole else arch.vocabulary * arch.hidden * dtype_bytes


def _merged(arch: Architecture, layout: Layout, dtype_bytes: int) -> int:
    """The largest layer with its adapter in it: the product twice in fp32, and the sum."""
    width = arch.moe.intermediate if arch.moe else 2 * arch.intermediate // layout.tensor
    return max(width, arch.heads * arch.head_dim // layout.tensor) * arch.hidden * (2 * FP32 + dtype_bytes)


def _host(config: RunConfig, held: Static, taken: Callable[[Iterable[int]], int]) -> list[tuple[str, int]]:
    """What waits there; a reference policy changes places with the weights, so it takes room for both (an adapter's is
    its base, which is there). A checkpoint written while the run goes on is a copy. taken: by buffers."""
    weights, state = taken(held.weight_storages), taken(held.state_storages)
    away = {"none": 0, "optimizer": state, "all": state + weights}[config.actor.offload]
    has_reference = any(each.needs_reference for each in config.algorithms) and not config.model.lora
    reference = 2 * taken(held.parameter_bytes) if has_reference else 0
    snapshot = held.parameters - held.frozen + held.optimizer if config.trainer.async_checkpoints else 0
    found = (("reference policy", reference), ("actor", away), ("checkpoint on its way", snapshot))
    return [(name, size) for name, size in found if size]


def pinned(sizes: Iterable[int]) -> int:
    """Bytes that pinned buffers of `sizes` take up: torch makes each a power of two (ATen/core/CachingHostAllocator.h:
    PowerOf2Ceil, unless its pinned_max_round_threshold is set)."""
    return sum(1 << (size - 1).bit_length() for size in sizes if size)

"""The actor's part of the configuration. Defaults and comments: configs/{model,parallel,optimizer}/*.yaml."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from gcpo_mcore.base import platform
from gcpo_mcore.base.config import Config, Free


class ModelConfig(Config):
    """path: a Hugging Face folder (architecture, weights, tokenizer); dtype: of weights and activations."""

    path: str
    dtype: Literal["float32", "bfloat16"]


class ParallelConfig(Config):
    """Sizes of the parallel axes. Data parallel is what is left: world size / (tensor * pipeline * context)."""

    tensor: PositiveInt
    pipeline: PositiveInt
    virtual_pipeline: PositiveInt  # chunks of layers of a stage, passed through in turn; 1: a stage is one piece
    context: PositiveInt  # every sequence is cut into parts over so many processes
    expert: PositiveInt  # a layer's experts are shared out over so many processes of a pipeline stage
    sequence: bool  # sequence parallel: split activations of norms and residuals over the tensor group
    distributed_optimizer: bool  # shard the optimizer state over the data-parallel group
    overlap: bool  # sum gradients during the backward pass; see also `overlaps_gather`
    recompute: Literal["none", "selective", "full"]  # activations made again in the backward pass: none, of MLPs, all
    threads: PositiveInt | Literal["auto"] | None  # CPU threads of a rank; auto: its share of the cores; null: torch's
    cpu_products: platform.Products  # what fp32 matrices are multiplied in on a CPU

    @property
    def overlaps_gather(self) -> bool:
        """Whether a distributed optimizer's weights are gathered while the next pass runs."""
        return self.overlap and self.distributed_optimizer


class ActorConfig(Config):
    """How the actor uses its device.

    backend: the layers are megatron-core's own, Transformer Engine's, or those if they can be (actor/backend.py).
    offload: what waits in host memory while the engine samples: nothing, what only the optimizer needs (its state, fp32
    main weights, gradient buffers), or the weights too.
    """

    backend: Literal["local", "te", "auto"]
    offload: Free[Literal["none", "optimizer", "all"]]


class OptimizerConfig(Config):
    """AdamW and its learning-rate schedule (see actor/optimizer.py)."""

    lr: PositiveFloat
    beta1: NonNegativeFloat
    beta2: NonNegativeFloat
    eps: PositiveFloat
    weight_decay: NonNegativeFloat
    clip_grad_norm: PositiveFloat
    schedule: Literal["constant", "linear", "cosine"]
    warmup_updates: NonNegativeInt
    decay_start_fraction: Annotated[float, Field(ge=0, lt=1)]  # of the updates after the warm-up
    final_lr_fraction: NonNegativeFloat
    max_skipped_updates: Free[PositiveInt]  # consecutive non-finite gradients before the run stops

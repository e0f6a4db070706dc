"""The SGLang engine's configuration. Defaults and comments: configs/rollout/sglang.yaml."""

from typing import Any

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from gcpo_mcore.base import platform
from gcpo_mcore.base.config import Free, Secret
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.registry import transports
from gcpo_mcore.hf import lora
from gcpo_mcore.rollout.config import EngineMemory, RolloutConfig
from gcpo_mcore.rollout.sglang.server import is_local

# Of a server's process on each of its GPUs, for good: CUDA's context, CUDA graphs, NCCL's buffers. Not measured.
CONTEXT_BYTES = 3 * 2**29
PREFILL_TOKENS = 8192  # that SGLang reads at a time on a large GPU
API_KEY = "api-key"  # the argument of launch_server
LOADED_ADAPTERS = 2  # at a time: while a new one is loaded, the one before is there
LOGIT_BYTES = 12  # of a draw, for each token of the vocabulary: logits, probabilities and their sum, in fp32


class SglangConfig(RolloutConfig):
    """Servers that run already (`servers`), or `start_servers` that the run starts beside itself (colocated).

    transport: how weights travel, a file in transports/: 'tensor' from process to process on one machine (CUDA IPC on
    GPUs), 'distributed' by a broadcast group, 'disk' through a folder that the servers can read (`weights_folder`).

    adapter_folder: with model/adapter=lora the adapter alone travels, through a folder that the servers can read; they
    keep its base (adapter.py). adapter_rank: of the largest that the servers started here have room for.

    memory_saver: servers here leave the GPU to the actor while it trains; None: they do if they do not sample then.

    api_key_variable: the environment variable that has the key of `servers` and `router`; the run's own servers have
    one of their own (keys.py).

    Where the servers are and how they are reached is free: a continuation may have others.
    """

    partial: bool
    uncorrected: bool
    servers: Free[list[str]]
    router: Free[str | None]
    start_servers: Free[NonNegativeInt]
    tensor_parallel: Free[PositiveInt]
    python: Free[str | None]
    arguments: Free[Secret[dict[str, str | int | float | bool | None]]]
    environment: Free[Secret[dict[str, str]]]
    api_key_variable: Free[str | None]
    restarts: Free[NonNegativeInt]
    start_command: Free[str | None]
    memory_saver: Free[bool | None]
    max_prompt_tokens: Free[PositiveInt]
    replay_routing: bool
    transport: Free[str]
    weights_folder: Free[str | None]
    adapter_folder: Free[str | None]
    adapter_rank: PositiveInt | None
    bucket_mib: Free[PositiveInt]
    verify_sync: Free[bool]
    requests_per_server: Free[PositiveInt]
    attempts: Free[PositiveInt]
    log_folder: Free[str]
    start_deadline_s: Free[PositiveFloat]
    sync_deadline_s: Free[PositiveFloat]
    request_deadline_s: Free[PositiveFloat]
    health_every_s: Free[PositiveFloat]
    health_deadline_s: Free[PositiveFloat]

    @field_validator("transport")
    @classmethod
    def _known_transport(cls, name: str) -> str:
        transports.check(name)
        return name

    @model_validator(mode="after")
    def _refuse_contradictions(self):
        if bool(self.servers) == bool(self.start_servers):
            raise UserError(
                "rollout.servers names SGLang servers that run, rollout.start_servers says how many to start: "
                "give one of the two"
            )
        if self.max_staleness and self.memory_saver:
            raise UserError(
                f"rollout.max_staleness={self.max_staleness} samples while the actor trains: "
                "rollout.memory_saver must be off"
            )
        if self.partial and self.oversampling == 1 and self.max_staleness < 2:
            raise UserError(
                "rollout.partial=true goes on with what rollout.oversampling above 1 calls off, or what new weights "
                "interrupt with rollout.max_staleness above 1: one of them is needed"
            )
        if self.start_command and not self.servers:
            raise UserError("rollout.start_command starts rollout.servers again; the run's own need none")
        if self.router and not self.servers:
            raise UserError("rollout.router needs rollout.servers, the servers behind it: weights go to each of them")
        if self.api_key_variable and not self.servers:
            raise UserError("rollout.api_key_variable is for rollout.servers; the run's own have a key of their own")
        if self.memory_saver and not self.start_servers:
            raise UserError("rollout.memory_saver is for servers on the trainer's own GPUs (rollout.start_servers)")
        if self.transport == "distributed" and self.start_servers and platform.HAS_CUDA:
            raise UserError(
                "rollout.transport=distributed: NCCL makes no group of two processes on one GPU, and "
                "rollout.start_servers are on the trainer's own; use tensor"
            )
        if self.transport == "disk" and not self.weights_folder:
            raise UserError("rollout.transport=disk needs rollout.weights_folder, which the servers can read")
        if self.transport == "tensor" and self.servers and not all(is_local(url) for url in self.servers):
            raise UserError("rollout.transport=tensor works on one machine: use distributed or disk")
        if self.adapter_folder and self.rests:
            raise UserError(
                "rollout.adapter_folder: the servers keep the adapter's base, so rollout.memory_saver must be false"
            )
        if self.adapter_folder and self.verify_sync:
            raise UserError("rollout.verify_sync compares all weights; with rollout.adapter_folder none are sent")
        return self

    @property
    def sends_adapter(self) -> bool:
        """See `RolloutConfig`."""
        return self.adapter_folder is not None

    @property
    def rests(self) -> bool:
        """Whether servers here leave the GPU to the actor while it trains."""
        if self.memory_saver is None:
            return self.start_servers > 0 and self.max_staleness == 0
        return self.memory_saver

    def cache_tokens(self, max_prompt_tokens: int, max_positions: int) -> int:
        """Tokens that a server's cache has room for: of all requests under way at their longest, and at least of one
        sequence as long as the model allows (an evaluation may ask for more than the training)."""
        requests = self.requests_per_server * (1 + self.max_staleness)
        return max(requests * (max_prompt_tokens + self.sampling.max_response_tokens), max_positions)

    def memory(self, arch: Any, max_prompt_tokens: int, dtype_bytes: int) -> EngineMemory:
        """Of a server on the trainer's GPUs, which is started with room for so much (process.py)."""
        if not self.start_servers:
            return EngineMemory()
        heads = -(-arch.kv_heads // self.tensor_parallel)  # a GPU has at least one
        tokens = self.cache_tokens(max_prompt_tokens, arch.max_positions)
        bucket = max(self.bucket_mib * 2**20, arch.vocabulary * arch.hidden * dtype_bytes)
        adapters = 0
        if self.sends_adapter and self.adapter_rank:  # nothing of the base is on its way
            adapters, bucket = LOADED_ADAPTERS * lora.parameters(arch, self.adapter_rank, "all-linear"), 0
        return EngineMemory(
            (arch.parameters + adapters) * dtype_bytes // self.tensor_parallel,
            tokens * 2 * arch.layers * heads * arch.head_dim * dtype_bytes,
            working=self.working_bytes(arch, dtype_bytes),
            on_the_way=2 * bucket,  # one is sent while the next is gathered
            stays=CONTEXT_BYTES,
            rests=self.rests,
            keeps_cache=True,
        )

    def working_bytes(self, arch: Any, dtype_bytes: int) -> int:
        """What a server's passes need for a moment on each GPU: by formula, not measured."""
        tokens = self.arguments.get("chunked-prefill-size") or PREFILL_TOKENS
        tokens = int(tokens) if int(tokens) > 0 else PREFILL_TOKENS
        wide = (arch.heads + 2 * arch.kv_heads) * arch.head_dim + 3 * arch.intermediate
        passes = tokens * (4 * arch.hidden + wide // self.tensor_parallel) * dtype_bytes
        return passes + self.requests_per_server * arch.vocabulary * LOGIT_BYTES

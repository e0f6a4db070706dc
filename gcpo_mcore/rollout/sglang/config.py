"""The SGLang engine's configuration. Defaults and comments: configs/rollout/sglang.yaml."""

from typing import Any

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from gcpo_mcore.base.config import Free
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.registry import transports
from gcpo_mcore.rollout.config import EngineMemory, RolloutConfig
from gcpo_mcore.rollout.sglang.server import is_local


class SglangConfig(RolloutConfig):
    """Servers that run already (`servers`), or `start_servers` that the run starts beside itself (colocated).

    transport: how weights travel, a file in transports/: 'tensor' from process to process on one machine (CUDA IPC on
    GPUs), 'distributed' by a broadcast group, 'disk' through a folder that the servers can read (`weights_folder`).

    Where the servers are and how they are reached is free: a continuation may have others.
    """

    partial: bool
    uncorrected: bool
    servers: Free[list[str]]
    router: Free[str | None]
    start_servers: Free[NonNegativeInt]
    tensor_parallel: Free[PositiveInt]
    python: Free[str | None]
    arguments: Free[dict[str, str | int | float | bool | None]]
    environment: Free[dict[str, str]]
    restarts: Free[NonNegativeInt]
    start_command: Free[str | None]
    memory_saver: Free[bool]
    replay_routing: bool
    transport: Free[str]
    weights_folder: Free[str | None]
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
        if self.memory_saver and not self.start_servers:
            raise UserError("rollout.memory_saver is for servers on the trainer's own GPUs (rollout.start_servers)")
        if self.transport == "disk" and not self.weights_folder:
            raise UserError("rollout.transport=disk needs rollout.weights_folder, which the servers can read")
        if self.transport == "tensor" and self.servers and not all(is_local(url) for url in self.servers):
            raise UserError("rollout.transport=tensor works on one machine: use distributed or disk")
        return self

    def memory(self, arch: Any, max_prompt_tokens: int, dtype_bytes: int) -> EngineMemory:
        """Of a server on the trainer's GPUs: its share of the model, and the cache of all requests under way.

        SGLang itself takes a fraction of the GPU (rollout.arguments.mem-fraction-static), which must hold both.
        """
        if not self.start_servers:
            return EngineMemory()
        cache = self._cache_bytes(arch, max_prompt_tokens, self.requests_per_server, dtype_bytes)
        return EngineMemory(
            arch.parameters * dtype_bytes // self.tensor_parallel,
            cache // self.tensor_parallel,
            rests=self.memory_saver,
            keeps_cache=True,
        )

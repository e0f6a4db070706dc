"""A server process of the run's own: started, watched while it starts, and ended with everything it started."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from gcpo_mcore.base import platform
from gcpo_mcore.base.background import child_environment
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.parent import kill_group
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.rollout.sglang import guard, serve
from gcpo_mcore.rollout.sglang.adapter import start_options
from gcpo_mcore.rollout.sglang.config import API_KEY, CONTEXT_BYTES, SglangConfig
from gcpo_mcore.rollout.sglang.server import Server

POLL_S = 0.5
TRAINER_BYTES = 2**30  # NCCL's buffers, which come with the first messages
SMALLEST_FRACTION = 0.1  # with less a server does not start, and says so
# What the trainer's own environment sets: SGLang may have another.
NOT_INHERITED = (
    "PYTHONPATH", "VIRTUAL_ENV", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "CUDA_DEVICE_MAX_CONNECTIONS",
)  # fmt: skip


class ServerProcess:
    """One `sglang.launch_server`, number `number` of this node, on GPUs of its own; its output goes to `log`.

    It listens at `host` and `port` (None: a free one). `first_rank` is the run's rank on its first GPU. It gets the
    memory that SglangConfig.memory counts, of the `free_bytes` that each of its GPUs has; None: it is not known.
    Its end comes with that of the thread that starts it, which should last. With a `key` it listens to nobody else.
    """

    def __init__(
        self,
        config: SglangConfig,
        model_folder: str,
        dtype: str,
        number: int,
        log: Path,
        host: str = "127.0.0.1",
        port: int | None = None,
        first_rank: int | None = None,
        free_bytes: int | None = None,
        key: str | None = None,
    ):
        self.config, self.number, self.log = config, number, log
        self.port = port or _free_port()
        self.first_rank = number * config.tensor_parallel if first_rank is None else first_rank
        self.server = Server(f"http://{host}:{self.port}", config.sync_deadline_s, self.first_rank, key)
        arch = read_architecture(model_folder)
        options = {
            "model-path": model_folder,
            "dtype": dtype,
            "host": host,
            "port": self.port,
            "nccl-port": _free_port(),  # else it may choose one that another server is about to take
            "tp-size": config.tensor_parallel,
            "base-gpu-id": number * config.tensor_parallel if platform.HAS_CUDA else None,
            "random-seed": number,
            "skip-server-warmup": not platform.HAS_CUDA,  # there the first passes compile kernels
            "enable-memory-saver": config.rests,
            "max-total-tokens": config.cache_tokens(config.max_prompt_tokens, arch.max_positions),
            "mem-fraction-static": static_fraction(config.working_bytes(arch, _bytes_of(dtype)), free_bytes),
            "enable-return-routed-experts": config.replay_routing,
            **start_options(config),
            **{name: value for name, value in config.arguments.items() if name != API_KEY},
        }
        python = config.python or sys.executable
        if shutil.which(python) is None:
            raise UserError(f"rollout.python={python}: there is no such interpreter")
        command = [sys.executable, guard.__file__, str(os.getpid()), python, serve.__file__]
        for name, value in options.items():
            if value not in (False, None):
                values = value if isinstance(value, list) else [] if value is True else [value]
                command += [f"--{name}", *map(str, values)]
        kept = {k: v for k, v in child_environment().items() if k not in NOT_INHERITED}
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env=kept | config.environment,
                start_new_session=True,  # one process group, to be ended as one
            )
        _tell(self.process, f"{key or ''}\n")
        self.deadline = time.monotonic() + config.start_deadline_s

    @property
    def is_alive(self) -> bool:
        """Whether its first process still runs."""
        return self.process.poll() is None

    def problem(self) -> str | None:
        """Why it will never be ready, or None."""
        if not self.is_alive:
            return self.last_words()
        if time.monotonic() > self.deadline:
            return f"the SGLang server was not ready within {self.config.start_deadline_s:g} s; see {self.log}"
        return None

    def last_words(self) -> str:
        """Why it ended, as far as its log tells."""
        return f"the SGLang server ended; see {self.log}: {_telling_line(self.log)}"

    def wait(self) -> None:
        """Returns when it can generate. UserError if it never will."""
        while not self.server.is_up(timeout_s=POLL_S * 10):
            if problem := self.problem():
                raise UserError(f"rollout: {problem}")
            time.sleep(POLL_S)

    def end(self) -> None:
        """Kills it and all that it started."""
        kill_group(self.process)


def free_bytes(free: Sequence[int | None], first_rank: int, gpus: int) -> int | None:
    """The least that is free on a server's GPUs, of what is free on every rank's; None if that is not known."""
    of_server = free[first_rank : first_rank + gpus]
    known = [size for size in of_server if size is not None]
    return min(known) if known and len(known) == gpus else None


def static_fraction(working_bytes: int, free_bytes: int | None) -> float | None:
    """The part of what is free that a server may take for weights and cache: all but what its passes need, and what
    the trainer's process on that GPU still takes later. (SGLang's own default fills the GPU.)"""
    if free_bytes is None:
        return None
    left = 1 - (working_bytes + CONTEXT_BYTES + TRAINER_BYTES) / free_bytes
    return int(max(left, SMALLEST_FRACTION) * 1000) / 1000


def _tell(process: subprocess.Popen, line: str) -> None:
    """Gives a process its standard input, which is fewer bytes than a pipe holds."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:  # it ended at once; `problem` will say why
        process.stdin.write(line.encode())


def _bytes_of(dtype: str) -> int:
    return torch.finfo(getattr(torch, dtype)).bits // 8


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _telling_line(log: Path) -> str:
    """The last line that says something about an error, else the last one."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["it said nothing"])[-1][:300]

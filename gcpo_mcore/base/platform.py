"""The one module that knows the difference between CPU and GPU.

Megatron-Core is written for CUDA: it asks for `device='cuda'`, `torch.cuda.current_device()` and
compares `tensor.type()` with 'torch.cuda.FloatTensor'. On a machine without CUDA, `megatron()` is a
scope inside which those requests are answered by the CPU; it changes nothing outside the scope and
nothing at all where CUDA is there. Every call into megatron-core stands inside it.
"""

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from unittest import mock

import psutil
import torch
from torch.cuda import nccl as torch_nccl
from torch.distributed import distributed_c10d
from torch.overrides import TorchFunctionMode

from gcpo_mcore.base.errors import UserError

Threads = int | Literal["auto"] | None
Products = Literal["float32", "bfloat16"]

HAS_CUDA = torch.cuda.is_available()
HOPPER = 9  # its compute capability
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # their numbers in malloc.h

if not HAS_CUDA:
    # megatron-core decorates small functions with torch.compile; on the CPU the compiler costs
    # minutes and wins nothing. It reads this when it is imported.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")


def device() -> torch.device:
    """The device on which this rank computes."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if HAS_CUDA else torch.device("cpu")


def gpus() -> int:
    """The number of GPUs of this machine."""
    return torch.cuda.device_count()


def visible_gpus() -> list[str]:
    """The GPUs of this machine that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[: gpus()] or [str(number) for number in range(gpus())]


def backend() -> str:
    """The torch.distributed backend of the tensors' collectives."""
    return "nccl" if HAS_CUDA else "gloo"


def backends() -> str:
    """The backends of the default group: what is not on a GPU goes by gloo, so that no rank that waits for a message
    keeps its GPU busy."""
    return "cpu:gloo,cuda:nccl" if HAS_CUDA else "gloo"


def abort_groups() -> None:
    """Ends all process groups without waiting for anybody: NCCL's own end may wait for what is under way."""
    if HAS_CUDA:
        distributed_c10d._abort_process_group()
    else:
        torch.distributed.destroy_process_group()


def nccl() -> tuple[int, ...] | None:
    """The version of NCCL; None without a GPU."""
    return tuple(int(number) for number in torch_nccl.version()[:3]) if HAS_CUDA else None


def start(threads: Threads, products: Products = "float32") -> None:
    """Sets device, thread count and determinism; once per process, before anything is built.

    threads   CPU threads of this rank; 'auto': the cores that it may use, shared out over this machine's ranks; None
              keeps torch's choice
    products  what fp32 matrices are multiplied in on a CPU

    UserError if there are fewer GPUs than processes, or no products of that kind.
    """
    if HAS_CUDA:
        check_gpus(int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1")), gpus())
        torch.cuda.set_device(device())
    else:
        torch.use_deterministic_algorithms(True)
        # On top of it torch would write NaN over every new tensor, in case somebody reads one before writing it.
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (its stubs do not know it)
        set_products(products)
    if threads == "auto":
        threads = max(len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)
    if threads is not None:
        torch.set_num_threads(threads)


def set_products(products: Products) -> None:
    """Lets fp32 matrices on a CPU be rounded to bf16 before they are multiplied, and summed in fp32; or not.

    UserError where the processor has no such products.
    """
    if products == "bfloat16" and not (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        raise UserError(
            "parallel.cpu_products=bfloat16: this processor multiplies no bf16 matrices (no amx_bf16, no avx512_bf16)"
        )
    torch.set_float32_matmul_precision("medium" if products == "bfloat16" else "highest")


def check_gpus(local_rank: int, processes: int, count: int) -> None:
    """UserError for a rank that finds no GPU left for it, of `count` on this machine."""
    if local_rank >= count:
        raise UserError(
            f"{processes} processes on this machine, {count} GPU{'s' if count > 1 else ''}: start {count} "
            f"(torchrun --nproc-per-node {count}), or hide the GPUs from a run on the CPU (CUDA_VISIBLE_DEVICES=)"
        )


def memory_gib() -> float:
    """Peak memory of this rank: of the GPU where there is one, else resident memory."""
    return max(_Peak.before_reset_gib, phase_memory_gib())


def phase_memory_gib() -> float:
    """Peak memory of this rank, as `memory_gib`, since the last `reset_phase_memory`.

    Where the system cannot forget a peak of resident memory (it is Linux that can): what is resident now.
    """
    if HAS_CUDA:
        return torch.cuda.max_memory_allocated() / 2**30
    found = _Peak.can_reset and re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 2**20 if found else psutil.Process().memory_info().rss / 2**30


def reset_phase_memory() -> None:
    """Forgets the peak so far, but for `memory_gib`."""
    _Peak.before_reset_gib = memory_gib()
    if HAS_CUDA:
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): 5 resets the peak of resident memory
    except OSError:
        _Peak.can_reset = False


class _Peak:
    before_reset_gib = 0.0
    can_reset = Path("/proc/self/clear_refs").exists()


def is_hopper() -> bool:
    """Whether this rank's GPU is an H100 or one of its kind."""
    return HAS_CUDA and torch.cuda.get_device_capability(device())[0] == HOPPER


def keep_launch_order() -> None:
    """Has a GPU begin kernels in the order of their launch; to be called before the GPU is used.

    megatron-core launches a message of tensor parallelism first, and then the product that is to hide it.
    """
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")


def device_memory_gib() -> float:
    """The whole memory of this rank's device: of the GPU where there is one, else of the machine."""
    if HAS_CUDA:
        return torch.cuda.get_device_properties(device()).total_memory / 2**30
    return psutil.virtual_memory().total / 2**30


def host_buffer(nbytes: int) -> torch.Tensor:
    """A buffer [nbytes] uint8 in host memory, pinned where a GPU copies to it."""
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=HAS_CUDA)


def free_device_bytes() -> int | None:
    """What nobody holds of this rank's GPU; None without one."""
    return torch.cuda.mem_get_info(device())[0] if HAS_CUDA else None


def collect_handed_over() -> None:
    """Frees the device memory that was handed to another process, as far as that has let it go."""
    if HAS_CUDA:
        torch.cuda.ipc_collect()


def free_cached_memory() -> None:
    """Gives the device memory that torch keeps for later to whoever else is on the device."""
    if HAS_CUDA:
        torch.cuda.empty_cache()


def give_memory_back() -> None:
    """Makes glibc return every large block when it is freed; a no-op with another C library.

    By default each large block that is freed raises the size from which blocks are returned, up to 32 MiB: a process
    that streams tensors then keeps ever more of them.
    """
    _mallopt(_M_MMAP_THRESHOLD, 2**20)


def keep_memory() -> None:
    """Makes glibc keep what is freed for the next tensor of a run on a CPU; a no-op with another C library.

    By default each large tensor is new memory, which the system fills with zeros page by page: a quarter of the time of
    a large product.
    """
    if HAS_CUDA:
        return
    _mallopt(_M_MMAP_THRESHOLD, 2**30)
    _mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _mallopt(parameter: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(parameter, value)


# Dense peak of a device in operations per second, by a part of its name; the makers' data sheets.
PEAK_FLOPS = {
    "H200": {"bfloat16": 989e12, "float32": 67e12},
    "H100": {"bfloat16": 989e12, "float32": 67e12},
    "A100": {"bfloat16": 312e12, "float32": 19.5e12},
}


def peak_flops(dtype: str) -> float | None:
    """The device's dense peak for matrix products in `dtype`, without tensor cores for float32; None if unknown."""
    if not HAS_CUDA:
        return None
    name = torch.cuda.get_device_name()
    return next((peaks[dtype] for part, peaks in PEAK_FLOPS.items() if part in name), None)


@contextlib.contextmanager
def megatron() -> Iterator[None]:
    """The scope in which megatron-core is imported and called. A no-op with CUDA; re-entrant."""
    if HAS_CUDA or _OnCpu.active:
        yield
        return
    with contextlib.ExitStack() as stack:
        _OnCpu.active = True
        stack.callback(setattr, _OnCpu, "active", False)
        for name, value in _CUDA_ON_CPU.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        # megatron's setter queues the state until CUDA starts, that is for ever: a silent no-op.
        from megatron.core.tensor_parallel import random

        stack.enter_context(mock.patch.object(random, "_set_cuda_rng_state", _set_rng_state))
        stack.enter_context(mock.patch.object(random, "_get_cuda_rng_state", _get_rng_state))
        # all_to_all wants its sizes as lists; megatron makes lists of tensors that come from a GPU only.
        from megatron.core.transformer.moe import token_dispatcher

        stack.enter_context(mock.patch.object(token_dispatcher, "maybe_move_tensor_to_cpu", _sizes_on_cpu))
        stack.enter_context(_OnCpu())
        yield


class _OnCpu(TorchFunctionMode):
    """Answers tensor requests for CUDA with the CPU."""

    active = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.type and len(args) == 1 and not kwargs:
            return func(*args).replace("torch.", "torch.cuda.")
        if "cuda" in str(kwargs.get("device", "")):
            kwargs = {**kwargs, "device": "cpu"}
        if kwargs.get("pin_memory"):  # only a GPU has use for it
            kwargs = {**kwargs, "pin_memory": False}
        return func(*args, **kwargs)


class _Stream:
    """A stream or event of a device that has only one queue: ordering is the program's own."""

    def __init__(self, *args, **kwargs):
        pass

    def wait_stream(self, other=None) -> "_Stream":
        return self

    wait_event = wait = record = record_event = synchronize = wait_stream


def _sizes_on_cpu(tensor, as_numpy=False, record_stream=False):
    return tensor.numpy() if as_numpy and torch.is_tensor(tensor) else tensor


def _get_rng_state(device=None, clone=False, graph_safe=False) -> torch.Tensor:
    return torch.get_rng_state()


def _set_rng_state(state: torch.Tensor, device=-1, graph_safe=False) -> None:
    torch.set_rng_state(state)


# What megatron-core calls in torch.cuda on the paths that this project runs.
_CUDA_ON_CPU = {
    "current_device": lambda: torch.device("cpu"),
    "synchronize": lambda device=None: None,
    "empty_cache": lambda: None,
    "manual_seed": lambda seed: torch.manual_seed(seed),
    "get_rng_state": _get_rng_state,
    "set_rng_state": _set_rng_state,
    "Stream": _Stream,
    "Event": _Stream,
    "stream": lambda stream: contextlib.nullcontext(),
    "current_stream": lambda device=None: _Stream(),
    "default_stream": lambda device=None: _Stream(),
}

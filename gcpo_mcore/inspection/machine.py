"""The machine: GPUs, memory, ports, disk, shared memory, clock, limits."""

import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from torch.cuda import nccl

from gcpo_mcore.base import platform
from gcpo_mcore.inspection.finding import Finding, Level, ok

GIB = 2**30
PORTS = {29500: "torchrun (--master-port)", 30000: "an SGLang server that is started by hand"}
LEAST_DISK_GIB, LEAST_SHARED_GIB, LEAST_MEMORY_GIB = 20.0, 2.0, 4.0
LEAST_FILES = 4096
MOST_SKEW_S = 2.0


def look(folder: Path) -> Iterator[Finding]:
    """Findings about this machine; runs would be written into `folder`."""
    yield from gpus()
    memory = psutil.virtual_memory()
    yield judge_memory(memory.available / GIB, memory.total / GIB, _limit_gib())
    yield from ports()
    yield judge_disk(folder, shutil.disk_usage(_there(folder)).free / GIB)
    if Path("/dev/shm").is_dir():
        yield judge_shared(shutil.disk_usage("/dev/shm").total / GIB, shutil.disk_usage("/dev/shm").free / GIB)
    yield judge_clock(time.time(), _clock_of(_there(folder)))
    yield judge_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def gpus() -> Iterator[Finding]:
    """Findings about CUDA, NCCL and every GPU."""
    build = torch.version.cuda
    if not platform.HAS_CUDA:
        yield judge_no_cuda(build, any(Path("/dev").glob("nvidia[0-9]*")))
        return
    yield ok("CUDA", f"torch {torch.__version__} is built for {build}")
    yield ok("NCCL", ".".join(map(str, nccl.version())))
    count = torch.cuda.device_count()
    for number in range(count):
        free, total = torch.cuda.mem_get_info(number)
        yield judge_gpu(number, torch.cuda.get_device_name(number), free / GIB, total / GIB)
    pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
    apart = [pair for pair in pairs if not torch.cuda.can_device_access_peer(*pair)]
    if pairs:
        yield judge_peers(apart, len(pairs))


def judge_no_cuda(build: str | None, has_device: bool) -> Finding:
    """A machine on which torch finds no GPU: by intention, or with one that it cannot use."""
    if not has_device:
        return Finding(Level.NOTE, "CUDA", "no GPU here: runs go on the CPU, with gloo")
    if build is None:
        return Finding(
            Level.PROBLEM, "CUDA", "there is a GPU, but this torch is built for the CPU",
            "install the CUDA build: pip install torch --index-url https://download.pytorch.org/whl/cu130",
        )  # fmt: skip
    return Finding(
        Level.PROBLEM, "CUDA", f"there is a GPU, but torch (built for CUDA {build}) cannot use it",
        "compare the driver's CUDA (nvidia-smi) with that; look at CUDA_VISIBLE_DEVICES, and --gpus of a container",
    )  # fmt: skip


def judge_gpu(number: int, name: str, free_gib: float, total_gib: float) -> Finding:
    """A GPU by the memory that others have of it."""
    words = f"{name}, {free_gib:.1f} of {total_gib:.1f} GiB free"
    if free_gib < 0.9 * total_gib:
        return Finding(Level.WARNING, f"GPU {number}", words, "somebody else is on it: nvidia-smi shows who")
    return ok(f"GPU {number}", words)


def judge_peers(apart: list[tuple[int, int]], pairs: int) -> Finding:
    """Whether GPUs reach each other's memory."""
    if apart:
        return Finding(
            Level.WARNING, "GPU to GPU",
            f"{len(apart)} of {pairs} pairs cannot reach each other, GPUs {apart[0]} for one",
            "tensor parallelism over them is slow: nvidia-smi topo -m; keep parallel.tensor within those that can",
        )  # fmt: skip
    return ok("GPU to GPU", f"all {pairs} pairs reach each other")


def judge_memory(available_gib: float, total_gib: float, limit_gib: float | None) -> Finding:
    """Host memory, and what a container leaves of it."""
    words = f"{available_gib:.1f} of {total_gib:.1f} GiB available"
    if limit_gib is not None and limit_gib < total_gib:
        words += f", this container may use {limit_gib:.1f}"
        available_gib = min(available_gib, limit_gib)
    if available_gib < LEAST_MEMORY_GIB:
        remedy = "end what else runs, or raise the container's limit; doctor plan says what a run needs"
        return Finding(Level.WARNING, "memory", words, remedy)
    return ok("memory", words)


def ports() -> Iterator[Finding]:
    """Findings about the name of this machine and the ports that a run takes by default."""
    name = socket.gethostname()
    try:
        yield ok("host name", f"{name} is {socket.gethostbyname(name)}")
    except OSError as error:
        yield Finding(
            Level.PROBLEM, "host name", f"{name} has no address ({error.strerror})",
            f"torchrun asks for it: add '127.0.0.1 {name}' to /etc/hosts",
        )  # fmt: skip
    for port, whose in PORTS.items():
        yield judge_port(port, whose, is_free(port))


def is_free(port: int) -> bool:
    """Whether nobody listens on a TCP port of this machine."""
    with socket.socket() as mine:
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            mine.bind(("", port))
        except OSError:
            return False
    return True


def judge_port(port: int, whose: str, is_free: bool) -> Finding:
    """A port that a run would take."""
    if is_free:
        return ok(f"port {port}", f"free, for {whose}")
    remedy = f"another run may be there (ss -ltnp | grep {port}); name another port"
    return Finding(Level.WARNING, f"port {port}", f"taken; it is the default of {whose}", remedy)


def judge_disk(folder: Path, free_gib: float) -> Finding:
    """Room for checkpoints where runs are written."""
    words = f"{free_gib:.1f} GiB free for {folder}"
    if free_gib < LEAST_DISK_GIB:
        remedy = "a checkpoint has 14 bytes a parameter: trainer.keep_checkpoints=1, or run.folder= elsewhere"
        return Finding(Level.WARNING, "disk", words, remedy)
    return ok("disk", words)


def judge_shared(total_gib: float, free_gib: float) -> Finding:
    """/dev/shm, by which NCCL and SGLang pass messages on a machine."""
    words = f"{free_gib:.2f} of {total_gib:.2f} GiB free"
    if free_gib < LEAST_SHARED_GIB:
        remedy = "NCCL and SGLang pass messages there: docker run --shm-size=16g (or --ipc=host)"
        return Finding(Level.WARNING, "/dev/shm", words, remedy)
    return ok("/dev/shm", words)


def judge_clock(here_s: float, disk_s: float) -> Finding:
    """This machine's clock beside that of the file system, which another machine may have. Unix seconds."""
    skew = here_s - disk_s
    words = f"{time.strftime('%Y-%m-%d %H:%M:%S %z', time.localtime(here_s))}, {skew:+.2f} s from the run folder's disk"
    if abs(skew) > MOST_SKEW_S:
        remedy = "logs and times of nodes will not agree: chronyc tracking, or timedatectl set-ntp true"
        return Finding(Level.WARNING, "clock", words, remedy)
    return ok("clock", words)


def judge_files(most: int) -> Finding:
    """How many files a process may have open."""
    if most < LEAST_FILES:
        remedy = f"hundreds of requests and shards are open at a time: ulimit -n {LEAST_FILES}"
        return Finding(Level.WARNING, "open files", f"{most} a process", remedy)
    return ok("open files", f"{most} a process")


def _limit_gib() -> float | None:
    """What a container allows; None without a limit."""
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(place)
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            return int(text) / GIB
    return None


def _there(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())


def _clock_of(folder: Path) -> float:
    """The time that the file system gives a new file; this machine's own where nothing can be written."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
            return Path(file.name).stat().st_mtime
    except OSError:
        return time.time()

"""What the tests' SGLang server keeps of its own state, and what a real one would die of.

Checked against SGLang 0.5.17, 0.5.21 and 0.5.23: managers/scheduler_components/weight_updater.py (release and resume
assert, flushes after an update), managers/scheduler.py (`is_fully_idle`), entrypoints/http_server.py
(`/health_generate` runs a forward pass on an idle server).
"""

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TAGS = ("weights", "kv_cache", "cuda_graph")
NOT_IDLE = "AssertionError: release_memory_occupation should be called only when server is idle."


class Books:
    """Which memory is mapped, and how many requests are under way. FOLDER/calls.jsonl gets a line for every call.

    gpu: a folder that stands for the GPU: each who has memory on it writes its bytes to a file there (`Gpu`).
    """

    def __init__(self, folder: Path, gpu: "Gpu | None" = None, sizes: dict[str, int] | None = None):
        self.folder, self.gpu, self.sizes = folder, gpu, sizes or dict.fromkeys(TAGS, 0)
        self.released: set[str] = set()
        self.under_way = 0
        self.lock = threading.Lock()
        self._account()

    def note(self, path: str) -> None:
        """Enters a call in the file of calls, with what is released and under way when it comes."""
        line = {"path": path, "released": sorted(self.released), "under_way": self.under_way}
        with self.lock, open(self.folder / "calls.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def die(self, reason: str) -> None:
        """As a scheduler with an exception ends the whole server."""
        (self.folder / "died").write_text(reason)
        print(f"Scheduler hit an exception: {reason}", file=sys.stderr, flush=True)
        os._exit(1)

    @contextmanager
    def request(self) -> Iterator[None]:
        """A request that is under way, whoever still listens. It ends the server if weights or cache are released."""
        self.forward()
        with self.lock:
            self.under_way += 1
        try:
            yield
        finally:
            with self.lock:
                self.under_way -= 1

    def forward(self) -> None:
        """A forward pass."""
        if self.released & {"weights", "kv_cache"}:
            self.die(f"CUDA error: an illegal memory access was encountered (released: {sorted(self.released)})")

    def update(self, flushes: bool) -> None:
        """New weights, after which the cache is flushed or not."""
        if "weights" in self.released:
            self.die("CUDA error: an illegal memory access was encountered (weights are released)")
        if flushes and self.under_way:
            self.die("AssertionError: Cache flush failed after updating weights")

    def release(self, tags: list[str]) -> None:
        if self.under_way:
            self.die(NOT_IDLE)
        if self.released & set(tags):
            self.die(f"torch_memory_saver: cannot pause allocation that is not active ({tags})")
        self.released |= set(tags)
        self._account()

    def resume(self, tags: list[str]) -> None:
        for tag in tags:
            if tag not in self.released:
                self.die(f"KeyError: '{tag}'")
            self.released.remove(tag)
        self._account()

    def _account(self) -> None:
        held = sum(size for tag, size in self.sizes.items() if tag not in self.released)
        if self.gpu and (over := self.gpu.take("server", held)):
            self.die(f"[torch_memory_saver.cpp] CUresult error: 2 (out of memory): {over}")


class Gpu:
    """A folder with a file of bytes for each who holds memory of one GPU, and `capacity` of it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.capacity = int((folder / "capacity").read_text())

    def take(self, who: str, size: int) -> str:
        """Enters that `who` holds `size` bytes from now on; returns who holds what if that is too much, else ''."""
        written = self.folder / f"{who}.new"
        written.write_text(str(size))
        written.rename(self.folder / f"{who}.bytes")
        held = {path.stem: int(path.read_text()) for path in sorted(self.folder.glob("*.bytes"))}
        total = sum(held.values())
        with open(self.folder / "book.jsonl", "a") as file:
            file.write(json.dumps(held) + "\n")
        return "" if total <= self.capacity else f"{held} of {self.capacity}"

"""What several measurements share: models of random weights, the commit, clocks and peaks."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from gcpo_mcore.base import platform

ROOT = Path(__file__).resolve().parents[1]
SIZES = {
    "tiny": {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 192, "tie_word_embeddings": True},
    "small": {"vocab_size": 2048, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 768, "tie_word_embeddings": True},
    "1.5b": {"vocab_size": 151936, "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12,
             "num_key_value_heads": 2, "intermediate_size": 8960, "tie_word_embeddings": True},
}  # fmt: skip
RESIDENT_EVERY_S = 0.01


def make_model(folder: str | Path, size: str, dtype: str) -> None:
    """Writes a Qwen2 model of random weights, without a tokenizer."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    with torch.device(platform.device()):  # random numbers for a large model take a CPU minutes
        model = Qwen2ForCausalLM(Qwen2Config(**SIZES[size], max_position_embeddings=32768, rope_theta=1e6))
    model.to(getattr(torch, dtype)).cpu().save_pretrained(folder)


def commit() -> str | None:
    """The checkout's commit; None where there is no git, or no checkout."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return found.stdout.strip() or None


def device_name() -> str:
    """The GPU's name, or cpu."""
    return torch.cuda.get_device_name() if platform.HAS_CUDA else "cpu"


def default_dtype() -> str:
    """What this device trains in."""
    return "bfloat16" if platform.HAS_CUDA else "float32"


def synchronise() -> None:
    """Waits for the device."""
    if platform.HAS_CUDA:
        torch.cuda.synchronize()


class HostPeak:
    """Most resident memory of this process while `watched()` is open, above what it was before, in bytes.

    Sampled: what is shorter than 10 ms may be missed.
    """

    def __init__(self) -> None:
        self.bytes = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watches until it is left."""
        process, done = psutil.Process(), threading.Event()
        before = process.memory_info().rss

        def watch() -> None:
            while not done.wait(RESIDENT_EVERY_S):
                self.bytes = max(self.bytes, process.memory_info().rss - before)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

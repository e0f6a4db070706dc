"""The output layer's kernels for a GPU, without one: run by Triton's interpreter, and compiled for an H100."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launching import ENVIRONMENT, ROOT

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def triton():
    """Comes with torch's builds for CUDA; `pip install triton` brings it to the others."""
    pytest.importorskip("triton", reason="Triton is not installed (pip install triton)")


def run(script: str, *args: str, processes: int = 1, **environment: str) -> None:
    """A script of this folder, in processes of its own: Triton reads its environment when it is imported."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] * (processes > 1)
    done = subprocess.run(
        [sys.executable, *launcher, str(HERE / script), *args],
        cwd=ROOT, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]


@pytest.mark.parametrize("processes", [1, 2])
def test_every_chunk_size_equals_float64_in_one_piece(processes, tmp_path):
    """As the plain way in test_logprobs.py."""
    run("logprobs_worker.py", str(tmp_path / "out.json"), "fused", processes=processes, TRITON_INTERPRET="1")
    results = json.loads((tmp_path / "out.json").read_text())
    assert len(results) == 4
    for logits_per_chunk, differences in results.items():
        assert all(d < 1e-6 for d in differences.values()), f"{logits_per_chunk}: {differences}"


def test_it_agrees_with_the_plain_way_in_bf16(tmp_path):
    """Rows longer than a block; some of padding, some of far-off logits; and twice through the same graph."""
    run("fused_head_worker.py", str(tmp_path / "out.json"), TRITON_INTERPRET="1")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["second gradient"] == 0
    # What is rounded to bf16 on both ways: logits alike, gradients at the end.
    assert found["logp"] < 1e-5 and found["entropy"] < 1e-5, found
    assert found["hidden gradient"] < 0.01 and found["weight gradient"] < 0.01, found


def test_the_kernels_compile_for_an_h100(tmp_path):
    """The interpreter takes more than the compiler does."""
    environment = {"TRITON_CACHE_DIR": str(tmp_path / "cache"), "TRITON_INTERPRET": "0"}
    run("kernel_compiler.py", str(tmp_path / "out.json"), **environment)
    assert json.loads((tmp_path / "out.json").read_text()) == {"_row_sums": True, "_to_gradient": True}
    assert os.listdir(tmp_path / "cache")

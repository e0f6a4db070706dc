"""bench/gpu_check.py at its size for a CPU: every part does its work, and one that fails does not end the next."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launching import ENVIRONMENT, ROOT


def check(out: Path, *arguments: str) -> tuple[int, dict]:
    """Exit code and what was written."""
    command = [sys.executable, str(ROOT / "bench/gpu_check.py"), "--size", "tiny", "--out", str(out), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    written = json.loads(out.read_text())
    assert json.loads(done.stdout) == written, done.stderr
    return done.returncode, written["parts"]


@pytest.fixture(scope="module")
def parts(carry, tmp_path_factory) -> dict:
    """Of all but the server: real ones are tests/sglang's."""
    out = tmp_path_factory.mktemp("check") / "out.json"
    code, found = check(out, "--data", str(carry), "--only", "kernels", "run", "ipc", "update", "checkpoint")
    assert code == 0, {name: part.get("error") for name, part in found.items()}
    return {name: part["result"] for name, part in found.items()}


def test_kernels_are_held_against_the_textbook(parts):
    found = parts["kernels"]["kernels"]
    assert {each["kernel"].split(",")[0] for each in found} == {"token_logprobs", "in_batches", "SwiGLU", "RMSNorm"}
    assert all(0 < each["error"] < (1e-5 if each["dtype"] == "float32" else 0.03) for each in found)


def test_a_run_is_resumed_and_exported(parts):
    run = parts["run"]["runs"]["packed"]
    assert run["steps"] == [1, 2] and len(run["launches_s"]) == 2
    assert "model.safetensors" in run["exported"] and run["golden_injected"] > 0


def test_weights_arrive(parts):
    assert parts["ipc"]["is_same"] and len(parts["ipc"]["round_s"]) == 2


def test_an_update_counts_what_it_computes(parts):
    plain, shared = parts["update"], parts["update"]["shared_prompts"]
    assert (plain["tokens"], plain["tokens_computed"]) == (512, 512)
    assert shared["tokens_computed"] == 512 - 6 * 8  # eight responses in two packs: the prompt of 8 tokens twice
    for found in (plain, shared):
        assert 0 < found["head_share_of_update"] < 1 and found["update"]["tflops_per_device"] > 0
        assert math.isclose(sum(found["profile"]["share_by_family"].values()), 1, abs_tol=0.01)
        assert found["profile"]["share_by_family"]["matrix products"] > 0


def test_a_checkpoint_is_measured(parts):
    (found,) = parts["checkpoint"]
    assert found["save_s"] > 0 and found["load_s"] > 0 and found["copy_s"] > 0


def test_a_part_that_fails_does_not_end_the_next(tmp_path):
    """Data that is not there: the run says so; the part after it is done."""
    code, found = check(tmp_path / "out.json", "--data", str(tmp_path / "none"), "--only", "run", "kernels")
    assert code == 1
    assert found["run"]["exit_code"] == 1 and str(tmp_path / "none") in found["run"]["error"]
    assert found["kernels"]["exit_code"] == 0 and found["kernels"]["result"]["kernels"]

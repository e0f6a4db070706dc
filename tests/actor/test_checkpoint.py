"""Checkpoints of the actor: exact at the same layout, right at another, and the four repairs."""

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import launch, run

WORKER = Path(__file__).with_name("worker.py")
CHUNKS = ["pipeline=2", "virtual_pipeline=2"]


def _saved(model: Path, folder: Path, processes: int, *options: str) -> tuple[Path, dict]:
    """A checkpoint after 2 updates, and the weights after the 3rd."""
    run(
        WORKER,
        str(model),
        str(folder / "out.json"),
        f"save={folder}/ck",
        "after=2",
        f"weights={folder}/w.pt",
        *options,
        processes=processes,
    )
    return folder / "ck", torch.load(folder / "w.pt")


@pytest.fixture(scope="module")
def plain(tiny_models, tmp_path_factory):
    return _saved(tiny_models["qwen2-tied"], tmp_path_factory.mktemp("plain"), 1)


@pytest.fixture(scope="module")
def sharded(tiny_models, tmp_path_factory):
    """Written at DP2 with the distributed optimizer."""
    return _saved(tiny_models["qwen2-tied"], tmp_path_factory.mktemp("sharded"), 2, "distributed_optimizer=1")


def _difference(weights: dict, expected: dict) -> float:
    return max(float((weights[n].double() - w.double()).abs().max()) for n, w in expected.items())


def _resume(model: Path, saved, folder: Path, processes: int, *options: str) -> float:
    """Largest weight difference after the next update, against not having stopped."""
    checkpoint, expected = saved
    run(
        WORKER,
        str(model),
        str(folder / "out.json"),
        f"load={checkpoint}",
        "after=2",
        f"weights={folder}/w.pt",
        *options,
        processes=processes,
    )
    assert len(json.loads((folder / "out.json").read_text())["metrics"]) == 1
    return _difference(torch.load(folder / "w.pt"), expected)


def test_same_layout_is_bitwise(tiny_models, plain, tmp_path):
    assert _resume(tiny_models["qwen2-tied"], plain, tmp_path, 1) == 0.0


@pytest.mark.parametrize(
    "processes, options",
    [(2, ["tensor=2"]), (2, ["pipeline=2"]), (2, CHUNKS), (2, ["context=2"]), (2, [])],
    ids=["TP2", "PP2", "PP2 in 2 chunks", "CP2", "DP2"],
)
def test_another_layout(tiny_models, plain, tmp_path, processes, options):
    assert _resume(tiny_models["qwen2-tied"], plain, tmp_path, processes, *options) < 1e-5


def test_chunks_of_a_stage(tiny_models, tmp_path):
    """Written at PP2 in 2 chunks: the same layout is bitwise, others are right."""
    saved = _saved(tiny_models["qwen2-tied"], tmp_path, 2, *CHUNKS, "distributed_optimizer=1")
    assert _resume(tiny_models["qwen2-tied"], saved, tmp_path, 2, *CHUNKS, "distributed_optimizer=1") == 0.0
    assert _resume(tiny_models["qwen2-tied"], saved, tmp_path, 2, "tensor=2", "distributed_optimizer=1") < 1e-5


def test_without_repair_4_tied_stages_are_shifted(tiny_models, tmp_path):
    """PP2 with tied embeddings, which are a bucket of their own that ends in padding."""
    stages = ["pipeline=2", "distributed_optimizer=1"]
    saved = _saved(tiny_models["qwen2-tied"], tmp_path, 2, *stages, "break=4")
    assert _resume(tiny_models["qwen2-tied"], saved, tmp_path, 2, *stages, "break=4") > 0.1


@pytest.mark.parametrize("options", [[], ["tensor=2"]], ids=["DP2", "TP2"])
def test_distributed_optimizer(tiny_models, sharded, tmp_path, options):
    assert _resume(tiny_models["qwen2-tied"], sharded, tmp_path, 2, "distributed_optimizer=1", *options) < 1e-5


@pytest.mark.parametrize("repair", ["1", "2"])
def test_without_repair_loading_fails(tiny_models, sharded, tmp_path, repair):
    done = launch(
        WORKER,
        str(tiny_models["qwen2-tied"]),
        str(tmp_path / "o"),
        f"load={sharded[0]}",
        "after=2",
        "distributed_optimizer=1",
        f"break={repair}",
        processes=2,
    )
    assert done.returncode != 0


def test_without_repair_3_the_next_update_is_wrong(tiny_models, sharded, tmp_path):
    difference = _resume(tiny_models["qwen2-tied"], sharded, tmp_path, 2, "distributed_optimizer=1", "break=3")
    assert difference > 1e-4

"""An actor that is offloaded before every update does bit by bit what one does that is not."""

from pathlib import Path

import pytest
import torch

from tests.launching import run

WORKER = Path(__file__).with_name("offload_worker.py")
CASES = [
    "distributed_optimizer=1,dtype=bfloat16",
    "pipeline=2,dtype=bfloat16",
    "pipeline=2,virtual_pipeline=2",
    "tensor=2,dtype=bfloat16,lora=rank=4",
]


@pytest.fixture(scope="module")
def results(tiny_models, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("offload")
    run(WORKER, str(tiny_models["qwen2-tied"]), str(folder / "out.pt"), str(folder), *CASES, processes=2)
    return torch.load(folder / "out.pt")


@pytest.mark.parametrize("case", CASES)
def test_updates_are_bitwise_the_same(case, results):
    plain = results[f"{case}|none"]
    assert plain["metrics"][2]["actor/kl_ref_loss"] > 0
    for what in ("optimizer", "all"):
        other = results[f"{case}|{what}"]
        assert other["metrics"] == plain["metrics"]
        assert all(torch.equal(other["weights"][name], weight) for name, weight in plain["weights"].items())


@pytest.mark.parametrize("case", CASES)
def test_the_device_is_free_meanwhile(case, results):
    plain, optimizer, everything = (results[f"{case}|{what}"]["left"] for what in ("none", "optimizer", "all"))
    assert all(plain.values())
    assert (optimizer["gradients"], optimizer["state"], optimizer["weights"]) == (0, 0, plain["weights"])
    # A model in fp32 is its own main weights.
    assert optimizer["main"] == (0 if "bfloat16" in case else plain["weights"])
    assert set(everything.values()) == {0}


@pytest.mark.parametrize("case", CASES)
def test_meanwhile_nothing_is_read_but_by_who_brings_it_back(case, results):
    """Storages are empty then: reading them would be reading freed memory."""
    assert results[f"{case}|none"]["refused"] == []
    for what in ("optimizer", "all"):
        assert results[f"{case}|{what}"]["refused"] == ["score", "stage"]
        assert results[f"{case}|{what}"]["exported"]


@pytest.mark.parametrize("case", CASES)
def test_checkpoint_and_reference(case, results):
    """A checkpoint written while the actor was away goes on exactly; the reference stays the starting weights'."""
    for what in ("none", "optimizer", "all"):
        assert results[f"{case}|{what}"]["resumed"] == 0
        assert results[f"{case}|{what}"]["reference"] == 0

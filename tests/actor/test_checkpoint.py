"""Checkpoints of the actor: what one layout and optimizer wrote, another reads to the bit; the next update is the same.

Every case is a run of two updates and a checkpoint, or loads an earlier case's; both take a third update. Two processes
do all of them.
"""

import json
from pathlib import Path

import pytest
import torch

from tests.actor.families import make_model
from tests.launching import run

WORKER = Path(__file__).with_name("relayout_worker.py")
SHARDED = "distributed_optimizer=1"
CASES = {
    "tp": f"dense:tensor=2:{SHARDED}",
    "tp to pp": f"dense@tp:pipeline=2:{SHARDED}",
    "dp": f"dense:{SHARDED}:late=1",
    "dp to tp": f"dense@dp:tensor=2:{SHARDED}",
    "dp to dp": f"dense@dp:{SHARDED}",
    "dp to plain": "dense@dp:late=1",
    "dp to overlap": f"dense@dp:{SHARDED}:overlap=1",
    "dp to plain overlap": "dense@dp:overlap=1:sequences=1",
    "plain to chunks": f"dense@dp to plain:pipeline=2:virtual_pipeline=2:{SHARDED}",
    "chunks to chunks": f"dense@plain to chunks:pipeline=2:virtual_pipeline=2:{SHARDED}",
    "chunks to overlap": f"dense@plain to chunks:pipeline=2:virtual_pipeline=2:{SHARDED}:overlap=1",
    "chunks to cp": f"dense@plain to chunks:context=2:{SHARDED}",
    "chunks to plain tp": "dense@plain to chunks:tensor=2:sequence=1:recompute=full",
    "ep": "experts:expert=2",
    "ep to ep": "experts@ep:expert=2",
    "ep to dp": f"experts@ep:{SHARDED}",
    "dp to pp of experts": "experts@ep to dp:pipeline=2",
    "bf16": "dense:dtype=bfloat16",
    "bf16 to tp": f"dense@bf16:dtype=bfloat16:tensor=2:{SHARDED}",
    "bf16 to plain": "dense@bf16 to tp:dtype=bfloat16",
    "lora": "dense:tensor=2:sequence=1:lora=rank=4",
    "lora to lora": "dense@lora:tensor=2:sequence=1:lora=rank=4",
    "lora to dp": f"dense@lora:lora=rank=4:{SHARDED}",
    "lora to chunks": "dense@lora:pipeline=2:virtual_pipeline=2:lora=rank=4",
    "lora experts": "experts:expert=2:lora=rank=4",
    "lora experts to dp": f"experts@lora experts:lora=rank=4:{SHARDED}",
    "old": f"dense:pipeline=2:{SHARDED}:old=1",
    "old to dp": f"dense@old:{SHARDED}",
    "old to pp": f"dense@old:pipeline=2:{SHARDED}",
    "old plain": "dense:tensor=2:dtype=bfloat16:old=1",
    "old plain to tp": f"dense@old plain:tensor=2:dtype=bfloat16:{SHARDED}",
    "old experts": f"experts:expert=2:{SHARDED}:old=1",
    "old experts to dp": f"experts@old experts:{SHARDED}",
}
ORIGIN = {
    "tp to pp": "tp",
    "dp to pp of experts": "ep",
    "ep to dp": "ep",
    "ep to ep": "ep",
    "bf16 to tp": "bf16",
    "lora to lora": "lora",
    "lora to dp": "lora",
    "lora to chunks": "lora",
    "lora experts to dp": "lora experts",
    "bf16 to plain": "bf16",
    "old to dp": "old",
    "old to pp": "old",
    "old plain to tp": "old plain",
    "old experts to dp": "old experts",
}
# The same layout and optimizer, but for where the optimizer's state lies.
BITWISE = [
    "dp to dp",
    "dp to plain",
    "dp to overlap",
    "ep to ep",
    "bf16 to plain",
    "lora to lora",
    "old to pp",
    "old plain to tp",
]
ROUNDED = [
    "tp to pp",
    "dp to tp",
    "dp to plain overlap",
    "plain to chunks",
    "chunks to cp",
    "chunks to plain tp",
    "ep to dp",
    "dp to pp of experts",
    "lora to dp",
    "lora to chunks",
    "lora experts to dp",
    "old to dp",
    "old experts to dp",
]


@pytest.fixture(scope="module")
def results(tiny_models, tmp_path_factory) -> dict[str, dict]:
    """{case: {folder: the checkpoint, state: its tensors, weights: after the update that follows}}"""
    folder = tmp_path_factory.mktemp("relayout")
    models = {"dense": str(tiny_models["qwen2-tied"]), "experts": str(make_model("qwen3-moe", folder / "experts"))}
    (folder / "models.json").write_text(json.dumps(models))
    cases = [f"{name}:{case}" for name, case in CASES.items()]
    run(WORKER, str(folder), str(folder / "models.json"), *cases, processes=2, timeout_s=3600)
    return {name: torch.load(folder / f"{name}.pt") | {"folder": folder / name} for name in CASES}


def _next_update(results, case: str, before: str) -> float:
    """Largest difference of the weights after the next update, in units of the largest weight."""
    mine, expected = results[case]["weights"], results[before]["weights"]
    assert mine.keys() == expected.keys()
    largest = max(float(w.abs().max()) for w in expected.values())
    return max(float((mine[n].double() - w.double()).abs().max()) for n, w in expected.items()) / largest


def _unpadded(state: dict) -> dict:
    """The checkpoint's tensors without the vocabulary's padding, master weights under the plain optimizer's name."""
    tensors = {k.replace("state.param.", "state.fp32_param."): v for k, v in state.items() if torch.is_tensor(v)}
    return {k: v[:131] if "word_embeddings" in k or "output_layer" in k else v for k, v in tensors.items()}


@pytest.mark.parametrize("case", [name for name in CASES if " to " in name])
def test_what_was_loaded_is_what_was_saved(results, case):
    """Weights, both moments and master weights, saved again at the other layout: not a bit is lost."""
    mine, expected = _unpadded(results[case]["state"]), _unpadded(results[ORIGIN.get(case, "dp")]["state"])
    both = mine.keys() & expected.keys()
    assert sum("exp_avg_sq" in key for key in both) == sum("exp_avg_sq" in key for key in expected) > 0
    assert [key for key in both if not torch.equal(mine[key], expected[key])] == []


def test_a_checkpoint_of_an_adapter_has_nothing_of_its_base(results):
    keys = results["lora"]["state"].keys()
    assert {key.split(".")[0] for key in keys} == {"adapter", "optimizer"}
    assert all(".adapter." in key for key in keys if key.startswith("optimizer.state."))


@pytest.mark.parametrize("case", BITWISE)
def test_the_next_update_is_bitwise_at_the_same_layout(results, case):
    assert _next_update(results, case, ORIGIN.get(case, "dp")) == 0.0


@pytest.mark.parametrize("case", ["chunks to chunks", "chunks to overlap"])
def test_chunks_again_are_bitwise(results, case):
    assert _next_update(results, case, "plain to chunks") == 0.0


@pytest.mark.parametrize("case", ROUNDED)
def test_the_next_update_at_another_layout(results, case):
    """Without the change of layout it would be the same, to rounding."""
    assert _next_update(results, case, ORIGIN.get(case, "dp")) < 1e-6


@pytest.mark.parametrize("case", ["dp", "dp to plain"])
def test_a_snapshot_written_after_another_update_is_the_same(results, case):
    """Taken at the moment of the synchronous checkpoint, written when the weights had moved on: the same bytes, but for
    the index, which names its folder."""
    folder, late = results[case]["folder"], results[case]["folder"].with_name(f"{case} late")
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert sum(name.suffix == ".distcp" for name in names) >= 2
    assert sorted(p.relative_to(late) for p in late.rglob("*") if p.is_file()) == names
    different = [n for n in names if (folder / n).read_bytes() != (late / n).read_bytes()]
    assert [n for n in different if n.name != ".metadata"] == []

"""The plan of a grid before it runs, without weights; the shapes that are shipped for it."""

from pathlib import Path

import pytest

from gcpo_mcore.ablation.grid import read_grid
from gcpo_mcore.ablation.preview import PROBLEM, plans
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.hf.hub import SHAPES, config_folder, find_config
from tests.launching import ROOT, launch

PUBLISHED = {  # numbers of parameters as the models' pages have them, counted in their safetensors files
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen2.5-14B": 14_770_033_664,
    "Qwen/Qwen2.5-32B": 32_763_876_352,
    "01-ai/Yi-1.5-34B": 34_388_917_248,
}


def test_shipped_shapes_have_the_published_sizes():
    shipped = {str(file.parent.relative_to(SHAPES)) for file in SHAPES.rglob("config.json")}
    assert shipped == PUBLISHED.keys()
    for name, parameters in PUBLISHED.items():
        assert read_architecture(config_folder(name)).parameters == parameters


def test_every_shipped_model_has_a_shape():
    for file in (ROOT / "configs/model").glob("*.yaml"):
        name = file.read_text().partition("path: ")[2].split()[0]
        assert name.startswith("${prepared}") or name in PUBLISHED, file


def test_a_folder_goes_before_a_known_name(tiny_models, monkeypatch, tmp_path):
    found = find_config(str(tiny_models["llama"]))
    assert found.folder == str(tiny_models["llama"]) and found.has_weights
    assert find_config("Qwen/Qwen2.5-7B").has_weights is False
    assert find_config("nobody/nothing") is None and find_config(str(tmp_path)) is None
    monkeypatch.chdir(tmp_path)
    Path("Qwen/Qwen2.5-7B").mkdir(parents=True)
    assert find_config("Qwen/Qwen2.5-7B") is None


def test_model_sizes_are_planned_without_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = read_grid(["experiment=model_sizes", "algorithm=gcpo"])
    assert {cell.processes for cell in grid.cells} == {4, 8, 16}
    found = {sizes["model"]: sizes for sizes in plans(grid, gpus_here=8).values()}
    assert found.keys() == PUBLISHED.keys() - {"Qwen/Qwen2.5-32B"}
    for name, sizes in found.items():
        assert PROBLEM not in sizes and sizes["parameters"] == PUBLISHED[name]
        processes = int(sizes["processes"].split()[0])
        needs_more = f"GPUs: {processes} are needed, 8 are here" in sizes["missing here"]
        assert needs_more == (processes > 8)
        assert f"weights of {name}" in sizes["missing here"]
        assert "prepared/gsm8k/train.jsonl (the grid makes it)" in sizes["missing here"]
        gib = float(sizes["memory of a GPU"].split()[0])
        assert 10 < gib < 80 - 2
    # 14B in 4 tensor parts: a quarter of it and what each part has whole (norms, biases of the split)
    assert found["Qwen/Qwen2.5-14B"]["parameters of a process"] == pytest.approx(14_770_033_664 / 4, rel=1e-3)


def test_the_servers_of_model_sizes_are_on_the_runs_own_gpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for cell in read_grid(["experiment=model_sizes", "algorithm=gcpo"]).cells:
        rollout = cell.config.rollout
        assert rollout.rests and cell.config.actor.offload == "all"
        assert rollout.start_servers * rollout.tensor_parallel == cell.processes


def test_an_impossible_layout_ends_the_dry_run(carry):
    done = launch(
        "tools/ablate.py", f"prepared={carry}", f"model.path={carry}/init", "seed=0,1", "parallel.tensor=3",
        "processes=3", "dry_run=true",
    )  # fmt: skip
    assert done.returncode == 2 and "parallel.tensor=3 does not divide the model's heads (4)" in done.stderr
    assert done.stdout.count("tools/train.py") == 2 and "does not fit together" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("model", ["qwen2.5-1.5b", "nobody/nothing"])
def test_a_plan_names_what_is_missing(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = f"model={model}" if "/" not in model else f"model.path={model}"
    grid = read_grid([chosen, "seed=0,1", "data.train.hard.path=nowhere.jsonl"])
    (sizes,) = plans(grid, gpus_here=0).values()
    assert ("parameters" in sizes) == ("/" not in model)
    assert "weights of " in sizes["missing here"] and "nowhere.jsonl" in sizes["missing here"]
    assert "prepared/carry-seed0/train_easy.jsonl (the grid makes it)" in sizes["missing here"]

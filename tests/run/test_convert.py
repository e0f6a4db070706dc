"""tools/convert.py: there and back bitwise, at any layout, or one clear line and nothing left behind."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.run.folder import RunFolder
from tests.actor.families import make_model
from tests.launching import ENVIRONMENT, ROOT, launch, run
from tests.sums import sum_folder

THERE_AND_BACK = ["qwen2", "llama3", "qwen3-moe"]  # biases and tied, rope scaling, q/k norms and experts and untied


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: make_model(name, folder / name) for name in (*THERE_AND_BACK, "mistral")}


@pytest.fixture(scope="module")
def checkpoints(models, tmp_path_factory) -> dict[str, Path]:
    """{family: the run folder that to-megatron made}."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in THERE_AND_BACK:
        out = run("tools/convert.py", "to-megatron", str(models[name]), str(folder / name))
        assert "largest logit difference to the folder" in out
    return {name: folder / name for name in THERE_AND_BACK}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def assert_same(folder: Path, expected: dict[str, torch.Tensor]) -> None:
    found = weights_of(folder)
    assert found.keys() == expected.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])] == []


@pytest.mark.parametrize("family", THERE_AND_BACK)
def test_there_and_back(family, models, checkpoints, tmp_path):
    out = tmp_path / "out"
    run("tools/convert.py", "to-hf", str(checkpoints[family]), str(out), "--shard-gib", str(80_000 / 2**30))
    assert_same(out, weights_of(models[family]))
    index = json.loads((out / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert shards == sorted(p.name for p in out.glob("*.safetensors")) and len(shards) > 2
    for shard in shards:  # at most the given size, unless one tensor is larger; a header of at most 10 kB
        assert (out / shard).stat().st_size < 80_000 + 10_000 or len(load_file(out / shard)) == 1
    same = AutoModelForCausalLM.from_pretrained(out).eval()
    ids = torch.arange(30).unsqueeze(0)
    torch.testing.assert_close(same(ids).logits, AutoModelForCausalLM.from_pretrained(models[family])(ids).logits)


def test_a_run_of_any_name_and_a_checkpoint_by_its_folder(models, checkpoints, tmp_path):
    named = tmp_path / "checkpoints/step_000020"  # by its name and place, a checkpoint
    shutil.copytree(checkpoints["qwen2"], named)
    run("tools/convert.py", "to-hf", str(named), str(tmp_path / "out"))
    assert_same(tmp_path / "out", weights_of(models["qwen2"]))
    inside = named / "checkpoints"
    command = [sys.executable, str(ROOT / "tools/convert.py"), "to-hf", "step_000000"]
    for out, options, code in (("a", [], 0), ("b", ["--step", "1"], 2)):
        done = subprocess.run([*command, out, *options], cwd=inside, env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == code and (inside / out).exists() == (code == 0), done.stderr
    assert done.stderr == "error: --step 1: step_000000 is the checkpoint of step 0\n"


def test_bfloat16(models, checkpoints, tmp_path):
    run("tools/convert.py", "to-hf", str(checkpoints["qwen2"]), str(tmp_path / "out"), "--dtype", "bfloat16")
    assert_same(tmp_path / "out", {n: t.bfloat16() for n, t in weights_of(models["qwen2"]).items()})
    assert AutoConfig.from_pretrained(tmp_path / "out").dtype is torch.bfloat16


def test_made_checkpoint_loads_at_other_layouts(models, checkpoints, tmp_path):
    step = "checkpoints/step_000000"
    cases = {
        "tensor": f"{models['qwen2']}@{checkpoints['qwen2'] / step}:tensor=2",
        "pipeline": f"{models['llama3']}@{checkpoints['llama3'] / step}:pipeline=2",
        "expert": f"{models['qwen3-moe']}@{checkpoints['qwen3-moe'] / step}:expert=2",
    }
    run("tests/actor/families.py", str(tmp_path), *(f"{n}:{case}" for n, case in cases.items()), processes=2)
    for name, family in zip(cases, THERE_AND_BACK, strict=True):
        assert_same(tmp_path / name, weights_of(models[family]))


def test_trained_checkpoint_of_another_layout(models, tmp_path):
    """Written by training at EP2 x PP2, converted by one process."""
    folder = RunFolder(tmp_path / "run")
    folder.checkpoints.mkdir(parents=True)
    run(
        "tests/actor/worker.py", str(models["qwen3-moe"]), f"{tmp_path}/out.json", "updates=1", "after=1",
        f"save={folder.temporary(1)}", f"weights={tmp_path}/w.pt", "expert=2", "pipeline=2", processes=4,
    )  # fmt: skip
    sums = sum_folder(folder.temporary(1))
    (folder.temporary(1) / "state.json").write_text("{}")
    folder.finish_checkpoint(1, read_architecture(str(models["qwen3-moe"])), sums)
    folder.write_config({"model": {"dtype": "float32"}})
    folder.keep_model_files(str(models["qwen3-moe"]))
    run("tools/convert.py", "to-hf", str(folder.path), str(tmp_path / "hf"))
    assert_same(tmp_path / "hf", torch.load(tmp_path / "w.pt"))


# --- refusals ----------------------------------------------------------------------------------------------------


def refused(folder: Path) -> str:
    """The one line of a refused to-megatron; nothing is left beside the folder."""
    before = set(folder.parent.iterdir())
    done = launch("tools/convert.py", "to-megatron", str(folder), str(folder.parent / "new"))
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert set(folder.parent.iterdir()) == before
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture
def sharded(models, tmp_path) -> Path:
    """A model in three safetensors files with an index, to break."""
    model = AutoModelForCausalLM.from_pretrained(models["mistral"])
    model.save_pretrained(tmp_path / "m", max_shard_size="200KB")
    assert len(list((tmp_path / "m").glob("*.safetensors"))) >= 3
    return tmp_path / "m"


def test_missing_shard(sharded):
    missing = sorted(sharded.glob("*.safetensors"))[1]
    missing.unlink()
    assert f"{missing.name} is missing; model.safetensors.index.json names it" in refused(sharded)


def test_truncated_shard(sharded):
    broken = sorted(sharded.glob("*.safetensors"))[1]
    broken.write_bytes(broken.read_bytes()[:-1000])
    assert f"{broken}: cannot be read as safetensors" in refused(sharded)


def test_other_shape_missing_and_unknown_tensor(sharded):
    first = sorted(sharded.glob("*.safetensors"))[0]
    tensors = load_file(first)
    save_file({**tensors, "model.embed_tokens.weight": torch.zeros(131, 32)}, first)
    assert "model.embed_tokens.weight has shape [131, 32], the config says [131, 64]" in refused(sharded)
    save_file({**tensors, "model.extra.weight": torch.zeros(1)}, first)
    assert "tensor model.extra.weight is unknown to mistral" in refused(sharded)
    save_file({n: t for n, t in tensors.items() if n != "model.embed_tokens.weight"}, first)
    assert "tensor model.embed_tokens.weight is missing" in refused(sharded)


def test_gate(models, checkpoints):
    """Weights read wrongly are met, also where none of the tokens goes."""
    out = run(Path(__file__).with_name("gate_worker.py"), str(models["qwen2"]), str(checkpoints["qwen2"])).splitlines()
    assert out[0] == "True" and len(out) == 4
    assert out[1].endswith("model.embed_tokens.weight of the checkpoint is not what transformers loads from the folder")
    assert "model.layers.1.self_attn.q_proj.weight of the checkpoint" in out[2]
    assert "the logits of checkpoint and folder differ by " in out[3]


def test_values_that_are_not_finite(sharded):
    first = sorted(sharded.glob("*.safetensors"))[0]
    tensors = load_file(first)
    tensors["model.embed_tokens.weight"][5] = float("nan")
    save_file(tensors, first)
    assert "tensor model.embed_tokens.weight is not finite: 64 NaN, 0 infinite of 8,384" in refused(sharded)


def test_tokenizer_larger_than_the_vocabulary(sharded, carry):
    for path in (carry / "init").glob("*token*"):
        shutil.copy(path, sharded)
    config = json.loads((sharded / "config.json").read_text())
    (sharded / "config.json").write_text(json.dumps({**config, "vocab_size": 20}))
    assert "the tokenizer has 25 tokens, the model only 20" in refused(sharded)


REFUSED = {
    "architecture": ({"model_type": "mamba"}, "model_type 'mamba' is not carried"),
    "sliding window": ({"sliding_window": 64}, "sliding_window 64 is not carried"),
    "rope": (
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
        "rope_type 'yarn' is not carried; known: default, linear, llama3",
    ),
    "activation": ({"hidden_act": "gelu"}, "hidden_act gelu is not carried; known: silu"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unknown_architecture(case, models, tmp_path):
    changes, message = REFUSED[case]
    config = json.loads((models["mistral"] / "config.json").read_text())
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, **changes}))
    assert message in refused(tmp_path / "m")

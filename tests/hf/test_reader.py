"""A folder gives the weights that transformers' own reader gives, or is refused in one line: every kind of folder."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from gcpo_mcore.actor.hf_mapping import HfWeights
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.hf.tensors import tensors_on_disk
from tests.actor.families import make_model

EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, dict[str, torch.Tensor]]:
    """Tensors by family, with the config.json under "config"."""
    folder = tmp_path_factory.mktemp("models")
    return {name: load_file(make_model(name, folder / name) / "model.safetensors") for name in ("qwen2", "mistral")}


@pytest.fixture
def tied(models, tmp_path) -> Path:
    return remade("qwen2", models, tmp_path)


@pytest.fixture
def untied(models, tmp_path) -> Path:
    return remade("mistral", models, tmp_path)


def remade(family: str, models: dict, folder: Path) -> Path:
    """A folder with the family's config.json and its tensors in model.safetensors."""
    make_model(family, folder)
    save_file(models[family], folder / "model.safetensors")
    return folder


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def others(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of the same names and other values."""
    return {name: tensor + 1 for name, tensor in tensors.items()}


def halves(tensors: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    names = sorted(tensors)
    return [{n: tensors[n] for n in names[::2]}, {n: tensors[n] for n in names[1::2]}]


def write_sharded(folder: Path, shards: list[dict[str, torch.Tensor]], form: str = "safetensors") -> Path:
    """Replaces model.safetensors by shards with an index; its path."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    stem, save = ("model", save_file) if form == "safetensors" else ("pytorch_model", torch.save)
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = f"{stem}-{number:05d}-of-{len(shards):05d}.{form}"
        save(shard, folder / name)
        weight_map |= dict.fromkeys(shard, name)
    index = folder / f"{stem}.{form}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def edit(path: Path, change: Callable[[dict], object]) -> None:
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def weights(folder: Path) -> HfWeights:
    return HfWeights(str(folder), read_architecture(str(folder)))


def assert_as_transformers(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected, found = tensors_on_disk(model), weights(folder)
    assert set(found.names()) == expected.keys()
    assert [name for name in found.names() if not torch.equal(found(name).float(), expected[name])] == []


# --- what transformers reads ----------------------------------------------------------------------------------------


def stray_file(folder):
    save_file(others(tensors_of(folder)), folder / "a.safetensors")
    save_file(others(tensors_of(folder)), folder / "zz-consolidated.safetensors")


def index_beside_the_whole(folder):
    tensors = tensors_of(folder)
    write_sharded(folder, halves(others(tensors)))
    save_file(tensors, folder / "model.safetensors")


def sharded_with_shards_of_before(folder):
    tensors = tensors_of(folder)
    save_file(others(tensors), folder / "model-00001-of-00001.safetensors")
    write_sharded(folder, halves(tensors))


def index_of_other_tensors(folder):
    """It leaves one out, names one that is nowhere, and has the rest in the other file."""

    def change(index):
        files = sorted(set(index["weight_map"].values()))
        index["weight_map"] = {n: files[files[0] == f] for n, f in index["weight_map"].items() if n != NORM}
        index["weight_map"]["model.gone.weight"] = files[0]

    edit(write_sharded(folder, halves(tensors_of(folder))), change)


def same_tensor_in_two_shards(folder):
    first, second = halves(tensors_of(folder))
    write_sharded(folder, [first | second, second])


def torch_file(folder):
    torch.save(tensors_of(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def torch_file_of_before_torch_1_6(folder):
    torch.save(tensors_of(folder), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (folder / "model.safetensors").unlink()


def torch_files(folder):
    write_sharded(folder, halves(tensors_of(folder)), "bin")


def torch_file_beside_safetensors(folder):
    torch.save(others(tensors_of(folder)), folder / "pytorch_model.bin")


def buffers(folder):
    extra = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.rand(8) for i in range(2)}
    save_file({**tensors_of(folder), **extra, "model.rotary_emb.inv_freq": torch.rand(8)}, folder / "model.safetensors")


def several_types(folder):
    types = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
    tensors = {n: t.to(types[i % 4]) for i, (n, t) in enumerate(tensors_of(folder).items())}
    save_file(tensors, folder / "model.safetensors")


def named_by_the_config(folder):
    save_file(tensors_of(folder), folder / "mine.safetensors")
    save_file(others(tensors_of(folder)), folder / "model.safetensors")
    edit(folder / "config.json", lambda raw: raw.update(transformers_weights="mine.safetensors"))


READ = [
    stray_file, index_beside_the_whole, sharded_with_shards_of_before, index_of_other_tensors,
    same_tensor_in_two_shards, torch_file, torch_file_of_before_torch_1_6, torch_files, torch_file_beside_safetensors,
    buffers, several_types, named_by_the_config,
]  # fmt: skip


@pytest.mark.parametrize("make", READ)
@pytest.mark.parametrize("family", ["tied", "untied"])
def test_weights_are_those_that_transformers_loads(make, family, request):
    folder = request.getfixturevalue(family)
    make(folder)
    assert_as_transformers(folder)


def own_head(folder, change: float = 0.0):
    tensors = tensors_of(folder)
    save_file({**tensors, HEAD: tensors[EMBEDDING] + change}, folder / "model.safetensors")


def test_tied_model_with_its_embedding_twice(tied):
    own_head(tied)
    assert_as_transformers(tied)


def test_tied_model_whose_embedding_is_called_a_head(tied):
    tensors = tensors_of(tied)
    tensors[HEAD] = tensors.pop(EMBEDDING)
    save_file(tensors, tied / "model.safetensors")
    assert_as_transformers(tied)


def test_tied_model_saved_without_its_head(tied):
    AutoModelForCausalLM.from_pretrained(tied).model.save_pretrained(tied)
    assert "embed_tokens.weight" in tensors_of(tied)
    assert_as_transformers(tied)


def test_what_is_left_out_is_said(untied, caplog):
    stray_file(untied)
    with caplog.at_level(logging.WARNING, "gcpo_mcore.hf.reader"):
        weights(untied)
    assert "from model.safetensors, as transformers does; left out: a.safetensors, zz-consolid" in caplog.text


# --- what is refused ------------------------------------------------------------------------------------------------


def two_values_of_a_tensor(folder):
    tensors = tensors_of(folder)
    write_sharded(folder, [tensors, {NORM: tensors[NORM] + 1}])


def missing_file(folder):
    index = write_sharded(folder, halves(tensors_of(folder)))
    (index.parent / "model-00002-of-00002.safetensors").unlink()


def variant_only(folder):
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def dangling_link(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("gone")


def lfs_pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")


def torch_file_of_objects(folder):
    torch.save({"model": Path("x")}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def one(change: Callable[[torch.Tensor], torch.Tensor], name: str = NORM):
    """A folder in which one tensor is changed, or added."""

    def make(folder):
        tensors = tensors_of(folder)
        save_file({**tensors, name: change(tensors[NORM])}, folder / "model.safetensors")

    return make


def without_norm(folder):
    tensors = tensors_of(folder)
    del tensors[NORM]
    save_file(tensors, folder / "model.safetensors")


def index(change: Callable[[dict], object]):
    """A sharded folder whose index is changed."""
    return lambda folder: edit(write_sharded(folder, halves(tensors_of(folder))), change)


def config(**changes):
    return lambda folder: edit(folder / "config.json", lambda raw: raw.update(changes))


FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
REFUSED = {
    "two values": (two_values_of_a_tensor, "norm.weight is in model-00001-of-00002.safetensors and in model-00002"),
    "missing file": (missing_file, "-00002-of-00002.safetensors is missing; model.safetensors.index.json names it"),
    "variant": (variant_only, "what is there transformers does not read: model.fp16.safetensors"),
    "no weights": (no_weights, "no weights in "),
    "dangling link": (dangling_link, "model.safetensors is a link to a file that is not there"),
    "lfs": (lfs_pointer, "model.safetensors: cannot be read as safetensors (it is a Git LFS pointer: git lfs pull)"),
    "objects": (torch_file_of_objects, "pytorch_model.bin: cannot be read as weights that torch saved ("),
    "int8": (one(lambda norm: norm.to(torch.int8)), "model.norm.weight is I8: quantised weights are not carried"),
    "float8": (one(lambda norm: norm.to(torch.float8_e4m3fn)), "model.norm.weight is F8_E4M3: quantised"),
    "shape": (one(lambda norm: norm[:5].clone()), "model.norm.weight has shape [5], the config says [64]"),
    "unknown": (one(torch.clone, "model.extra.weight"), "tensor model.extra.weight is unknown to mistral"),
    "missing": (without_norm, "tensor model.norm.weight is missing"),
    "index without files": (index(lambda raw: raw["weight_map"].clear()), "it names no file"),
    "index without map": (index(lambda raw: raw.pop("weight_map")), "it has no weight_map"),
    "index without metadata": (index(lambda raw: raw.pop("metadata")), "it has no metadata"),
    "named file is gone": (config(transformers_weights="gone.safetensors"), "gone.safetensors is missing"),
    "adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "merge the adapter into the weights first"),
    "distributed": (
        lambda f: (f / "shard-00001-model-00001-of-00001.safetensors").touch(), "is of a distributed checkpoint",
    ),
    "quantised": (config(quantization_config=FP8), "quantization_config (fp8) is not carried"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, untied):
    make, message = REFUSED[case]
    make(untied)
    with pytest.raises(UserError) as refusal:
        weights(untied)
    assert message in str(refusal.value) and str(untied) in str(refusal.value) and "\n" not in str(refusal.value)


def test_tied_model_with_a_head_of_its_own(tied):
    """transformers keeps both, with a warning; whoever reads the config alone ties them."""
    own_head(tied, change=1.0)
    model = AutoModelForCausalLM.from_pretrained(tied)
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    with pytest.raises(UserError, match=r"lm_head.weight differs from .*, but config.json has tie_word_emb"):
        weights(tied)


@pytest.mark.parametrize("value, told", [("nan", "1 NaN, 0 infinite of 64"), ("-inf", "0 NaN, 1 infinite of 64")])
def test_values_that_are_not_finite(untied, value, told):
    one(lambda norm: norm.index_fill(0, torch.tensor(3), float(value)))(untied)
    read = weights(untied)
    with pytest.raises(UserError, match=f"tensor model.norm.weight is not finite: {told}"):
        read(NORM)
    assert read(EMBEDDING).isfinite().all()

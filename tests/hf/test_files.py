"""What of a model's folder goes along with its weights, under which modes, and what its config says then."""

import json
import os
from pathlib import Path

import pytest
import torch

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf.files import copy_model_files
from gcpo_mcore.hf.folder import write_hf

NEEDED = [
    "LICENSE", "NOTICE.txt", "added_tokens.json", "additional_chat_templates/tool_use.jinja", "chat_template.jinja",
    "config.json", "generation_config.json", "merges.txt", "special_tokens_map.json", "spiece.model", "tokenizer.json",
    "tokenizer.model", "tokenizer_config.json", "vocab.json",
]  # fmt: skip
LEFT = [
    "README.md", "adapter_config.json", "checkpoint-5/optimizer.pt", "consolidated.00.pth", "flax_model.msgpack",
    "hf_quant_config.json", "latest", "model.ckpt", "model.fp16.safetensors", "model.gguf", "model.onnx",
    "model.safetensors", "model.safetensors.index.json", "modeling_own.py", "onnx/model.onnx", "optimizer.pt",
    "original/params.json", "params.json", "pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json",
    "rng_state.pth", "runs/events.out", "scheduler.pt", "tf_model.h5", "trainer_state.json", "training_args.bin",
    "zero_to_fp32.py",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in (*NEEDED, *LEFT):
        path = tmp_path / "m" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        path.chmod(0o600)
    return tmp_path / "m"


def files_of(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_what_a_model_needs_is_carried_along(folder, tmp_path):
    copy_model_files(folder, tmp_path / "out")
    assert files_of(tmp_path / "out") == NEEDED


def test_code_goes_along_where_a_class_is_named(folder, tmp_path):
    (folder / "config.json").write_text('{"auto_map": {"AutoConfig": "modeling_own.OwnConfig"}}')
    copy_model_files(folder, tmp_path / "out")
    assert files_of(tmp_path / "out") == sorted([*NEEDED, "modeling_own.py"])


def written(folder: Path, out: Path, weights: dict[str, torch.Tensor], **options) -> Path:
    write_hf(weights.items(), folder, out, **options)
    return out


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o007, 0o660)])
def test_modes_are_those_of_the_umask(umask, mode, folder, tmp_path):
    before = os.umask(umask)
    try:
        out = written(folder, tmp_path / "out", {"a": torch.ones(2), "b": torch.ones(2)}, shard_bytes=8)
    finally:
        os.umask(before)
    found = [path for path in out.rglob("*") if path.is_file()]
    assert {"model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json", "tool_use.jinja"} <= {
        path.name for path in found
    }
    assert {path.stat().st_mode & 0o777 for path in found} == {mode}


@pytest.mark.parametrize("given", [{"torch_dtype": "float32"}, {"dtype": "float16"}, {}])
def test_config_describes_the_weights_as_written(given, folder, tmp_path):
    of_the_old = {"quantization_config": {"quant_method": "fp8"}, "transformers_weights": "mine.safetensors"}
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", **of_the_old, **given}))
    out = written(folder, tmp_path / "out", {"a": torch.ones(2, dtype=torch.bfloat16)})
    expected = {"model_type": "qwen2", **(dict.fromkeys(given, "bfloat16") or {"dtype": "bfloat16"})}
    assert json.loads((out / "config.json").read_text()) == expected


def test_a_value_that_is_not_finite_is_not_written(folder, tmp_path):
    weights = {"a": torch.ones(2), "b": torch.tensor([1.0, float("inf")])}
    with pytest.raises(UserError, match="tensor b is not finite: 0 NaN, 1 infinite of 2"):
        written(folder, tmp_path / "out", weights)
    assert not (tmp_path / "out").exists()

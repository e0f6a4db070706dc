"""Kernels of packages that are not here are taken where those are: stand-ins of the packages say whether they are."""

import json

import pytest
import torch

from gcpo_mcore.actor.model import fuse_accumulation, transformer_config
from gcpo_mcore.base import platform
from tests.actor.test_layout_checks import DENSE
from tests.actor.worker import parallel_of
from tests.launching import run

FLASH_ATTENTION_3 = """
import torch
library = torch.library.Library("flash_attn_3", "DEF")
library.define("fwd(Tensor q) -> Tensor")
library.define("bwd(Tensor q) -> Tensor")
"""
SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from torch.nn.attention import current_flash_attention_impl
from gcpo_mcore.actor.packed_attention import use_flash_attention_3
print(json.dumps([use_flash_attention_3(), current_flash_attention_impl()]))
"""


@pytest.mark.parametrize("is_there", [False, True])
def test_flash_attention_3(is_there, tmp_path):
    packages = tmp_path / "packages"
    packages.mkdir()
    if is_there:
        (packages / "flash_attn_interface.py").write_text(FLASH_ATTENTION_3)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    assert json.loads(run(script, str(packages))) == ([True, "FA3"] if is_there else [False, None])


@pytest.mark.parametrize("is_there", [False, True])
def test_apex_adds_gradients_up_inside_the_product(is_there, tmp_path, monkeypatch):
    if is_there:
        (tmp_path / "fused_weight_gradient_mlp_cuda.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    of_gpu, of_cpu = (
        transformer_config(DENSE, parallel_of({}), torch.bfloat16, "local", on_gpu=on_gpu) for on_gpu in (True, False)
    )
    assert of_gpu.gradient_accumulation_fusion is is_there
    assert of_cpu.gradient_accumulation_fusion is False


def test_transformer_engines_layers_are_told_to():
    """By their own field, which other layers do not have."""
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    setattr(model[0], "fuse_wgrad_accumulation", False)  # noqa: B010 (not a field that torch's type knows)
    fuse_accumulation(model)
    assert model[0].fuse_wgrad_accumulation is True and not hasattr(model[1], "fuse_wgrad_accumulation")


def test_the_order_of_launches_is_set_once(monkeypatch):
    monkeypatch.delenv("CUDA_DEVICE_MAX_CONNECTIONS", raising=False)
    platform.keep_launch_order()
    assert platform.os.environ["CUDA_DEVICE_MAX_CONNECTIONS"] == "1"
    monkeypatch.setenv("CUDA_DEVICE_MAX_CONNECTIONS", "8")
    platform.keep_launch_order()
    assert platform.os.environ["CUDA_DEVICE_MAX_CONNECTIONS"] == "8"

"""actor.backend: what cannot be is refused before anything is built, auto does without it, and the names are known.

Transformer Engine itself is not here: its layers were never built by this suite.
"""

import importlib.util
from dataclasses import replace

import pytest
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec

from gcpo_mcore.actor.backend import choose_backend
from gcpo_mcore.actor.hf_mapping import hf_shapes, rules
from gcpo_mcore.base import platform
from gcpo_mcore.base.errors import UserError
from tests.actor.test_layout_checks import DENSE, EXPERTS
from tests.launching import launch

HAS_TE = importlib.util.find_spec("transformer_engine") is not None and platform.HAS_CUDA
without_te = pytest.mark.skipif(HAS_TE, reason="Transformer Engine is here")


@without_te
def test_te_without_it_is_one_line(carry, tmp_path):
    options = [f"prepared={carry}", f"model.path={carry}/init", f"run.folder={tmp_path}", "actor.backend=te"]
    done = launch("tools/train.py", *options)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: actor.backend=te: transformer-engine ")
    assert list(tmp_path.iterdir()) == []


@without_te
def test_auto_does_without():
    assert choose_backend("auto", DENSE) == choose_backend("local", DENSE) == "local"
    with pytest.raises(UserError, match=r"actor\.backend=te: "):
        choose_backend("te", EXPERTS)


@pytest.mark.parametrize("arch", [DENSE, replace(DENSE, qkv_bias=True, qk_norm=False, tied_embeddings=True)])
def test_fused_norms_have_the_hugging_face_names_of_the_plain_ones(arch):
    """megatron-core says itself which of Transformer Engine's names stand for its own: checkpoints have the former."""
    known = get_gpt_layer_local_spec(normalization="RMSNorm").submodules.sharded_state_dict_keys_map
    assert len(known) == 2
    table, layer = rules(arch), "decoder.layers.{i}."
    for own, fused in known.items():
        assert table[f"{layer}{fused}weight"] == table[f"{layer}{own}weight"]
    # A Hugging Face folder has as many tensors as before.
    assert len(hf_shapes(arch)) == 3 - arch.tied_embeddings + arch.layers * (9 + 3 * arch.qkv_bias + 2 * arch.qk_norm)

"""Impossible layouts are refused before anything is built, with the key and the size that do not fit."""

from dataclasses import replace

import pytest

from gcpo_mcore.actor.layout import check_layout
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.convert.shards import ONE_PROCESS
from gcpo_mcore.hf.architecture import Architecture

DENSE = Architecture(
    family="qwen3", layers=4, hidden=64, heads=8, kv_heads=2, head_dim=8, intermediate=96, vocabulary=131,
    max_positions=128, rope_theta=1e4, norm_eps=1e-6, tied_embeddings=False, qkv_bias=False, qk_norm=True,
)  # fmt: skip
EXPERTS = replace(DENSE, experts=4, experts_per_token=2, expert_intermediate=32, normalised_topk=True)
THREE_KV = replace(DENSE, heads=12, kv_heads=3)
CASES = [
    (DENSE, 8, {"tensor": 4}, None),  # more ranks than kv heads, a multiple of them
    (DENSE, 8, {"tensor": 2, "context": 2}, None),
    (DENSE, 6, {"tensor": 2, "context": 2}, "parallel.context=2 needs a multiple of 4 processes, got 6"),
    (DENSE, 2, {"pipeline": 2, "virtual_pipeline": 2}, None),
    (DENSE, 1, {"virtual_pipeline": 2}, "parallel.virtual_pipeline=2 needs parallel.pipeline above 1"),
    (DENSE, 2, {"pipeline": 2, "virtual_pipeline": 3}, "does not divide the model's layers (4)"),
    (THREE_KV, 2, {"tensor": 2}, "neither divides the model's kv_heads (3) nor is a multiple of them"),
    (DENSE, 5, {"tensor": 5}, "parallel.tensor=5 does not divide the model's heads (8)"),
    (DENSE, 2, {"expert": 2}, "parallel.expert=2: the model (qwen3) has no experts"),
    (EXPERTS, 4, {"expert": 4}, None),
    (EXPERTS, 3, {"expert": 3}, "parallel.expert=3 does not divide the model's experts (4)"),
    (EXPERTS, 6, {"expert": 4}, "parallel.expert=4 does not divide the processes of a pipeline stage (6)"),
    (EXPERTS, 2, {"tensor": 2, "sequence": True, "expert": 2}, None),
    (EXPERTS, 2, {"tensor": 2, "sequence": True}, "needs parallel.sequence=true and parallel.expert above 1"),
    (EXPERTS, 2, {"overlap": True}, "parallel.overlap=true does not go with a model with experts"),
    (DENSE, 2, {"overlap": True}, None),
    (EXPERTS, 2, {"tensor": 2, "expert": 2}, "needs parallel.sequence=true and parallel.expert above 1"),
]


@pytest.mark.parametrize("model, world, axes, message", CASES)
def test_layouts(model, world, axes, message, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    parallel = ONE_PROCESS.model_copy(update=axes)
    if message is None:
        layout = check_layout(parallel, model)
        assert layout.world == layout.data * layout.tensor * layout.pipeline * layout.context == world
        return
    with pytest.raises(UserError) as refused:
        check_layout(parallel, model)
    assert message in str(refused.value)


def test_parameters_of_a_model_with_experts():
    """By hand: per layer 2*64 norms, 64*8*(2*8+2*2) attention, 2*8 q/k norms, 4*64 router, 4*3*64*32 experts."""
    layer = 128 + 64 * 8 * 20 + 16 + 256 + 4 * 3 * 64 * 32
    assert EXPERTS.parameters == 4 * layer + 64 + 2 * 131 * 64

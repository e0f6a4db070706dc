"""The count against torch's own counter on transformers' model of the same architecture."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from gcpo_mcore.hf.architecture import Architecture, read_architecture
from gcpo_mcore.hf.flops import forward_flops, pass_flops, training_flops


@pytest.mark.parametrize("family", ["qwen2-tied", "qwen3", "llama"])
def test_forward_and_backward_are_what_torch_counts(family, tiny_models):
    arch = read_architecture(str(tiny_models[family]))
    model = AutoModelForCausalLM.from_pretrained(tiny_models[family], attn_implementation="eager")
    lengths = (7, 24)
    # Eager attention computes the masked half too: once more what we count of it.
    masked = sum(2 * arch.layers * arch.heads * arch.head_dim * s * s for s in lengths)
    for count, factor in ((forward_flops, 1), (training_flops, 3)):
        with FlopCounterMode(display=False) as counter:
            for s in lengths:
                logits = model(torch.zeros(1, s, dtype=torch.int64)).logits
                if factor == 3:
                    logits.sum().backward()
        assert counter.get_total_flops() == count(arch, lengths) + factor * masked


def test_experts_count_where_a_token_goes():
    dense = Architecture(
        family="qwen3", layers=2, hidden=8, heads=2, kv_heads=1, head_dim=4, intermediate=32, vocabulary=10,
        max_positions=64, rope_theta=1e4, norm_eps=1e-6, tied_embeddings=False, qkv_bias=False, qk_norm=True,
    )  # fmt: skip
    sparse = replace(dense, experts=16, experts_per_token=4, expert_intermediate=8)
    router = 2 * dense.layers * dense.hidden * 16 * 5
    assert forward_flops(sparse, [5]) == forward_flops(dense, [5]) + router


def test_logits_of_a_response_only(tiny_models):
    """What transformers computes with `logits_to_keep`, as torch counts it."""
    arch = read_architecture(str(tiny_models["llama"]))
    model = AutoModelForCausalLM.from_pretrained(tiny_models["llama"], attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 24, dtype=torch.int64), logits_to_keep=9)
    masked = 2 * arch.layers * arch.heads * arch.head_dim * 24 * 24
    assert counter.get_total_flops() == forward_flops(arch, [24], 9) + masked


def test_a_prompt_that_two_responses_share_is_counted_once(tiny_models):
    """Its rows beside those of two whole sequences: the difference is one pass over the prompt."""
    arch = read_architecture(str(tiny_models["llama"]))
    prompt, first, second = 11, 5, 8
    apart = forward_flops(arch, [prompt + first, prompt + second], first + second)
    together = pass_flops(arch, [(prompt, prompt), (first, prompt + first), (second, prompt + second)], first + second)
    assert apart - together == forward_flops(arch, [prompt], 0)

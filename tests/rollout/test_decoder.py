"""The embedded engine's decoder against transformers, for every family that the actor carries."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from gcpo_mcore.actor.hf_mapping import HfWeights
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.hf.architecture import read_architecture
from gcpo_mcore.rollout.decoder import Decoder
from tests.actor.families import FAMILIES, TINY, make_model

PROMPTS = [list(range(3, 40)), [7, 8, 9], [1, 2, 3], [5]]  # the longest first, two of a length
COPIES = [2, 1, 3, 1]
TOKENS = 40  # so far that scaled rotary frequencies show


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return str(make_model(request.param, tmp_path_factory.mktemp(request.param)))


def filled(folder, dtype="float32"):
    decoder, weights = Decoder(folder, dtype, torch.device("cpu")), HfWeights(folder, read_architecture(folder))
    assert sorted(weights.names()) == sorted(decoder.tensors)
    for name, target in decoder.tensors.items():
        target.view.fill_(torch.nan)
        target.fill(weights(name))
    return decoder


def decoded(decoder, prompts, copies, continuations):
    """Logits [rows, tokens + 1, v] after each prompt and each token of its row's continuation [rows, tokens]."""
    lengths = torch.tensor([len(ids) for ids, n in zip(prompts, copies, strict=True) for _ in range(n)])
    with torch.inference_mode():
        cache = decoder.cache(lengths, continuations.shape[1])
        logits = [decoder.prefill(prompts, copies, 0, cache).repeat_interleave(torch.tensor(copies), dim=0)]
        for t, tokens in enumerate(continuations.t()):
            logits.append(decoder.step(tokens, lengths + t, cache))
    return torch.stack(logits, dim=1)


def continuations():
    return torch.randint(0, TINY["vocab_size"], (sum(COPIES), TOKENS), generator=torch.Generator().manual_seed(0))


def expected_logits(folder, rows, dtype=torch.float32):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    whole = [ids for ids, n in zip(PROMPTS, COPIES, strict=True) for _ in range(n)]
    with torch.inference_mode():
        each = [model(torch.tensor([p + c])).logits[0, len(p) - 1 :] for p, c in zip(whole, rows.tolist(), strict=True)]
    return torch.stack(each)


def test_logits_are_transformers(folder):
    rows = continuations()
    found, wanted = decoded(filled(folder), PROMPTS, COPIES, rows), expected_logits(folder, rows)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_bf16_is_as_near_to_fp32_as_transformers_is(folder):
    """transformers in bf16 rounds in other places; both are held against its fp32."""
    if read_architecture(folder).moe:
        pytest.skip("a rounded router chooses other experts")
    rows = continuations()
    exact = expected_logits(folder, rows)
    theirs = (expected_logits(folder, rows, torch.bfloat16).float() - exact).abs().mean()
    mine = (decoded(filled(folder, "bfloat16"), PROMPTS, COPIES, rows).float() - exact).abs().mean()
    assert mine < 1.2 * theirs


def test_moved_rows_go_on_as_they_were(folder):
    decoder, rows = filled(folder), continuations()
    whole = decoded(decoder, PROMPTS, COPIES, rows)
    lengths = torch.tensor([len(ids) for ids, n in zip(PROMPTS, COPIES, strict=True) for _ in range(n)])
    with torch.inference_mode():
        cache = decoder.cache(lengths, TOKENS)
        decoder.prefill(PROMPTS, COPIES, 0, cache)
        for t in range(10):
            decoder.step(rows[:, t], lengths + t, cache)
        cache.move(torch.tensor([6, 4]), torch.tensor([0, 3]))  # rows 0, 3 and 5 are finished
        cache.live = 4
        left = torch.tensor([6, 1, 2, 4])
        for t in range(10, TOKENS):
            logits = decoder.step(rows[left, t], lengths[left] + t, cache)
            torch.testing.assert_close(logits, whole[left, t + 1], rtol=1e-4, atol=1e-4)


def test_a_model_of_another_form_is_refused(tmp_path):
    LlamaConfig(**TINY, attention_bias=True).save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"the embedded engine cannot run a model with model.layers.0.self_attn.o_proj.bias"
    ):
        Decoder(str(tmp_path), "float32", torch.device("cpu"))

"""The embedded engine on tiny random models: what it says of its samples is true, however it batches them."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from gcpo_mcore.base.registry import engines
from gcpo_mcore.rollout import embedded
from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.decoding import CHECK_EVERY_TOKENS
from gcpo_mcore.rollout.embedded import EmbeddedConfig
from gcpo_mcore.rollout.engine import FixedWeights, Request
from gcpo_mcore.rollout.sampling import request_seed
from gcpo_mcore.samples import Prompt

VOCABULARY, STOP, LIMIT = 23, 3, 12
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.25,
}
FAMILIES = {
    "qwen2": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=True),
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=False),
}
PROMPTS = [[5], [5, 6, 7], [1, 2], [9, 8, 7, 6, 5, 4, 11], [20], [10, 10, 10, 10]]


def sampling(temperature=0.8, top_p=1.0, top_k=0, tokens=LIMIT):
    return Sampling(temperature=temperature, top_p=top_p, top_k=top_k, max_response_tokens=tokens)


def random_model(config, seed=0):
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)


class Made:
    """An engine with the weights of `model`."""

    def __init__(self, folder, family="qwen2", sequences_per_batch=64, stop=(STOP,)):
        FAMILIES[family].save_pretrained(folder)
        self.model = random_model(FAMILIES[family])
        rollout = EmbeddedConfig(
            engine="embedded",
            sampling=sampling(),
            sequences_per_batch=sequences_per_batch,
            stop_token_ids=[],
            max_staleness=0,
            oversampling=1,
        )
        self.engine = engines.get("embedded")(rollout, str(folder), "float32", list(stop), lambda ids: repr(ids))
        self.engine.update_weights(FixedWeights(7, lambda: weights_of(self.model)))


def weights_of(model):
    return list(model.named_parameters())


def requests(per_prompt=3, prompts=PROMPTS):
    return [
        Request(Prompt(f"s:{n}", "s", "", ids, ""), index, request_seed("train", n, index))
        for n, ids in enumerate(prompts)
        for index in range(per_prompt)
    ]


def tokens_of(samples):
    return [s.response_ids.tolist() for s in samples]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", [sampling(0.8), sampling(1.3, top_p=0.9, top_k=9), sampling(0.0)])
def test_log_probs_are_those_of_a_whole_forward_pass(tmp_path, family, how):
    made, asked = Made(tmp_path, family), requests()
    samples = made.engine.generate(asked, how)
    for request, sample in zip(asked, samples, strict=True):
        prompt, n = request.prompt.token_ids, len(sample.response_ids)
        logits = made.model(torch.tensor([prompt + sample.response_ids.tolist()])).logits[0, len(prompt) - 1 : -1]
        logp = (logits / (how.temperature or 1.0)).log_softmax(1)
        wanted = logp[range(n), sample.response_ids.tolist()].numpy()
        np.testing.assert_allclose(sample.rollout_logp, wanted, rtol=0, atol=1e-5)
        assert sample.sampling_logp.shape == (n,)
        if how.temperature == 0:
            assert sample.response_ids.tolist() == logp.argmax(1).tolist()
            assert not sample.sampling_logp.any()
        elif how.top_k:
            assert (sample.sampling_logp >= sample.rollout_logp - 1e-6).all()
            assert (
                logp.argsort(1, descending=True).argsort(1)[range(n), sample.response_ids.tolist()] < how.top_k
            ).all()
        else:
            np.testing.assert_array_equal(sample.sampling_logp, sample.rollout_logp)


@pytest.mark.parametrize("family", FAMILIES)
def test_stop_token_lengths_and_flags(tmp_path, family):
    made, asked = Made(tmp_path, family), requests(per_prompt=8)
    samples = made.engine.generate(asked, sampling(1.5))
    assert [s.index for s in samples] == [r.index for r in asked]
    assert all(s.weight_version == 7 and not s.is_golden for s in samples)
    for s in samples:
        assert 1 <= len(s.response_ids) == len(s.rollout_logp) <= LIMIT
        assert STOP not in s.response_ids[:-1]
        assert s.truncated == (s.response_ids[-1] != STOP)
        assert len(s.response_ids) == LIMIT or not s.truncated
        assert s.response_text == repr(s.response_ids.tolist())
        assert (s.rollout_logp < 0).all()
    assert {s.truncated for s in samples} == {True, False}
    assert len({len(s.response_ids) for s in samples}) > 3, "lengths too alike to exercise the compaction"


def test_a_stop_token_in_the_last_place_is_no_truncation(tmp_path):
    made = Made(tmp_path)
    long = next(s for s in made.engine.generate(requests(8), sampling(1.5)) if 1 < len(s.response_ids) < LIMIT)
    asked = requests(8)
    for tokens, truncated in ((len(long.response_ids), False), (len(long.response_ids) - 1, True)):
        again = made.engine.generate(asked, sampling(1.5, tokens=tokens))
        match = [s for s in again if s.response_ids.tolist() == long.response_ids[:tokens].tolist()]
        assert match and all(s.truncated is truncated for s in match)


@pytest.mark.parametrize("stop", [(), (STOP, 4, 5)])
def test_no_or_several_stop_tokens(tmp_path, stop):
    samples = Made(tmp_path, stop=stop).engine.generate(requests(6), sampling(1.5))
    for s in samples:
        assert not set(s.response_ids[:-1].tolist()) & set(stop)
        assert s.truncated == (s.response_ids[-1] not in stop)
    assert {int(s.response_ids[-1]) for s in samples if not s.truncated} == set(stop)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_does_not_depend_on_its_batch(tmp_path, family):
    asked = requests(5)
    whole = Made(tmp_path, family, 64).engine.generate(asked, sampling(1.2))
    for sequences_per_batch in (1, 3):
        again = Made(tmp_path, family, sequences_per_batch).engine.generate(asked, sampling(1.2))
        assert tokens_of(again) == tokens_of(whole)
        for a, b in zip(again, whole, strict=True):
            np.testing.assert_allclose(a.rollout_logp, b.rollout_logp, rtol=0, atol=1e-5)
    engine = Made(tmp_path, family, 4).engine
    assert tokens_of(engine.generate(asked[::-1], sampling(1.2))) == tokens_of(whole)[::-1]
    assert tokens_of(engine.generate(asked[3:8], sampling(1.2))) == tokens_of(whole)[3:8]


def watch(monkeypatch, engine, name):
    """Notes the arguments of each call of the decoder's method `name`."""
    calls, method = [], getattr(engine.decoder, name)
    monkeypatch.setattr(engine.decoder, name, lambda *args: calls.append(args) or method(*args))
    return calls


def test_finished_rows_leave_the_batch(tmp_path, monkeypatch):
    made = Made(tmp_path, stop=(STOP, 4, 5, 6))
    steps = watch(monkeypatch, made.engine, "step")
    samples = made.engine.generate(requests(8), sampling(1.5))
    lengths = [len(s.response_ids) for s in samples]
    assert [len(tokens) for tokens, _, _ in steps] == [sum(n > t for n in lengths) for t in range(1, max(lengths))]


def test_rows_leave_later_where_a_look_is_dear(tmp_path, monkeypatch):
    """As on a GPU: finished rows decode on for a while, and what they draw is not told."""
    made, asked = Made(tmp_path, stop=(STOP, 4, 5, 6)), requests(8)
    expected = made.engine.generate(asked, sampling(1.5))
    monkeypatch.setitem(CHECK_EVERY_TOKENS, made.engine.device.type, 5)
    steps = watch(monkeypatch, made.engine, "step")
    samples = made.engine.generate(asked, sampling(1.5))
    widths = [len(tokens) for tokens, _, _ in steps]
    assert len(set(widths)) > 1 and all(a == b for t, (a, b) in enumerate(pairwise(widths), 2) if t % 5)
    assert tokens_of(samples) == tokens_of(expected)
    assert [s.truncated for s in samples] == [s.truncated for s in expected]


def test_a_prompt_is_computed_once_for_all_its_samples(tmp_path, monkeypatch):
    made = Made(tmp_path)
    prefills = watch(monkeypatch, made.engine, "prefill")
    asked = requests(4)
    whole = made.engine.generate(asked[::2] + asked[1::2], sampling(1.5))
    ((prompts, copies, row, _),) = prefills
    assert sorted(prompts) == sorted(PROMPTS) and set(copies) == {4} and row == 0
    monkeypatch.setattr(embedded, "PREFILL_TOKENS", 5)  # several prompts, one, and one that is longer
    prefills.clear()
    assert tokens_of(made.engine.generate(asked[::2] + asked[1::2], sampling(1.5))) == tokens_of(whole)
    assert [[len(ids) for ids in prompts] for prompts, *_ in prefills] == [[7], [4], [3, 2], [1, 1]]


def test_other_seeds_give_other_samples(tmp_path):
    samples = Made(tmp_path).engine.generate(requests(12, prompts=[[5, 6]]), sampling(1.5))
    assert len(set(map(tuple, tokens_of(samples)))) > 6


def test_no_requests_no_samples(tmp_path):
    assert Made(tmp_path).engine.generate([], sampling()) == []


def test_new_weights_change_what_is_generated(tmp_path):
    made, asked = Made(tmp_path), requests(4)
    before = tokens_of(made.engine.generate(asked, sampling()))
    other = random_model(FAMILIES["qwen2"], seed=1)
    made.engine.update_weights(FixedWeights(8, lambda: weights_of(other)))
    after = made.engine.generate(asked, sampling())
    assert tokens_of(after) != before
    assert made.engine.version == 8 and all(s.weight_version == 8 for s in after)
    made.engine.update_weights(FixedWeights(9, lambda: weights_of(made.model)))
    assert tokens_of(made.engine.generate(asked, sampling())) == before


def test_weights_may_be_those_of_a_model_in_training(tmp_path):
    made, asked = Made(tmp_path), requests(4)
    before = tokens_of(made.engine.generate(asked, sampling()))
    made.model.requires_grad_()
    made.engine.update_weights(FixedWeights(8, lambda: weights_of(made.model)))
    assert tokens_of(made.engine.generate(asked, sampling())) == before
    assert not any(target.view.requires_grad for target in made.engine.decoder.tensors.values())


def test_weights_are_copied_not_shared(tmp_path):
    made, asked = Made(tmp_path), requests(4)
    before = tokens_of(made.engine.generate(asked, sampling()))
    for _, tensor in weights_of(made.model):
        tensor.zero_()
    assert tokens_of(made.engine.generate(asked, sampling())) == before


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: [*w, ("model.surprise.weight", torch.zeros(2))], "no tensor model.surprise.weight"),
        (lambda w: w[:-1], "never received model.norm.weight"),
        (lambda w: [*w, w[0]], "no tensor model.embed_tokens.weight, or got it twice"),
        (lambda w: [("model.embed_tokens.weight", torch.zeros(32)), *w[1:]], "shape"),
    ],
    ids=["unknown", "missing", "twice", "another shape"],
)
def test_a_bad_sync_is_refused(tmp_path, change, message):
    made = Made(tmp_path)
    with pytest.raises(RuntimeError, match=message):
        made.engine.update_weights(FixedWeights(8, lambda: change(weights_of(made.model))))
    assert made.engine.version == 7

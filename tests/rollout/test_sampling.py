"""Drawing tokens, against brute force: the kept set, the inverse of the cumulative distribution, the log-probs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcpo_mcore.rollout.config import Sampling
from gcpo_mcore.rollout.sampling import draw, request_seed, uniforms


def sampling(temperature=1.0, top_p=1.0, top_k=0):
    return Sampling(temperature=temperature, top_p=top_p, top_k=top_k, max_response_tokens=1)


def distributions(logits: list[float], how: Sampling) -> tuple[list[float], list[float]]:
    """(the model's probabilities at the temperature, those drawn from), in plain floats."""
    scaled = [x / how.temperature for x in logits]
    top = max(scaled)
    weights = [math.exp(x - top) for x in scaled]
    model = [w / math.fsum(weights) for w in weights]
    order = sorted(range(len(model)), key=lambda i: -model[i])
    if how.top_k:
        order = order[: how.top_k]
    mass, kept, so_far = math.fsum(model[i] for i in order), [], 0.0
    for i in order:
        kept.append(i)
        so_far += model[i] / mass
        if how.top_p < 1 and so_far >= how.top_p:  # 1 keeps all: a sum that rounds to 1 early drops nothing
            break
    mass = math.fsum(model[i] for i in kept)
    return model, [model[i] / mass if i in kept else 0.0 for i in range(len(model))]


cases = st.builds(
    lambda seed, v, t, p, k, spread: (
        (np.random.default_rng(seed).permutation(v) * 0.37 + np.random.default_rng(seed).random(v) * 0.3) * spread,
        sampling(t, p, k),
    ),
    st.integers(0, 2**32 - 1),
    st.integers(2, 12),
    st.sampled_from([0.3, 0.6, 1.0, 1.7]),
    st.sampled_from([1.0, 0.95, 0.7, 0.31, 0.05]),
    st.integers(0, 13),
    st.sampled_from([0.1, 1.0, 4.0]),
)


@settings(deadline=None, max_examples=200)
@given(case=cases)
def test_each_uniform_maps_to_its_token(case):
    logits, how = case
    model, drawn = distributions(logits.tolist(), how)
    edges = np.cumsum(drawn)
    # a grid without the edges, where fp32 decides; but with 0 and the last float64 below 1
    grid = [i / 101 for i in range(101)] + [1 - 2**-53]
    points = [u for u in grid if abs(edges - u).min() > 1e-5 or u in (0, grid[-1])]
    batch = torch.tensor(logits, dtype=torch.float32).repeat(len(points), 1)
    token, model_logp, drawn_logp = draw(batch, torch.tensor(points, dtype=torch.float64), how)
    for u, i, a, b in zip(points, token.tolist(), model_logp.tolist(), drawn_logp.tolist(), strict=True):
        assert drawn[i] > 0, "a token outside the set"
        if u < grid[-1]:
            assert i == int(np.searchsorted(edges, u, side="right"))
        assert a == pytest.approx(math.log(model[i]), abs=1e-4)
        assert b == pytest.approx(math.log(drawn[i]), abs=1e-4)


@pytest.mark.parametrize("vocabulary", [127, 128, 640, 1000, 2048])
def test_a_vocabulary_of_many_blocks(vocabulary):
    """The same tokens and log-probs as a sum over the whole vocabulary in float64, but for uniforms at an edge."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(1, vocabulary, generator=generator) * 3
    logits[0, vocabulary // 3 : vocabulary // 2] = float("-inf")
    u = torch.rand(4000, dtype=torch.float64, generator=generator)
    exact = logits[0].double().log_softmax(0)
    edges = exact.exp().cumsum(0)
    u = u[(edges - u[:, None]).abs().amin(1) > 1e-6]
    assert len(u) > 2000
    token, model_logp, _ = draw(logits.repeat(len(u), 1), u, sampling())
    assert torch.equal(token, torch.searchsorted(edges, u, right=True))
    torch.testing.assert_close(model_logp.double(), exact[token], rtol=1e-6, atol=1e-6)


def test_no_end_of_the_stream_finds_a_token_without_probability():
    logits = torch.tensor([[0.0, 1.0, float("-inf"), float("-inf")]]).repeat(2, 1)
    token, logp, _ = draw(logits, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), sampling())
    assert token.tolist() == [0, 1] and logp.isfinite().all()


def test_diverged_weights_still_give_tokens_of_the_vocabulary():
    token, logp, _ = draw(torch.full((3, 256), torch.nan), torch.rand(3, dtype=torch.float64), sampling())
    assert ((token >= 0) & (token < 256)).all() and logp.isnan().all()


def test_whole_distribution_has_one_log_prob():
    logits = torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    _, model_logp, drawn_logp = draw(logits, torch.rand(50, dtype=torch.float64), sampling(0.7))
    assert torch.equal(model_logp, drawn_logp)


def test_log_prob_of_the_model_is_at_the_sampling_temperature():
    logits = torch.tensor([[2.0, 1.0, -1.0]])
    for temperature in (0.5, 1.0, 2.0):
        token, model_logp, drawn_logp = draw(
            logits, torch.zeros(1, dtype=torch.float64), sampling(temperature, top_k=1)
        )
        assert token.item() == 0 and drawn_logp.item() == 0.0
        assert model_logp.item() == pytest.approx((logits / temperature).log_softmax(1)[0, 0].item())


def test_greedy_takes_the_highest_whatever_the_uniform():
    logits = torch.randn(40, 11, generator=torch.Generator().manual_seed(1))
    token, model_logp, drawn_logp = draw(logits, torch.rand(40, dtype=torch.float64), sampling(0.0))
    assert torch.equal(token, logits.argmax(1))
    torch.testing.assert_close(model_logp, logits.log_softmax(1).max(1).values)
    assert not drawn_logp.any()


@pytest.mark.parametrize("how", [sampling(), sampling(0.6), sampling(1.3, top_p=0.8), sampling(1.0, 0.9, 4)])
def test_frequencies(how):
    """Chi-square of 20,000 draws; 99.99 % quantile by Wilson and Hilferty."""
    logits = [1.0, 0.2, -0.5, 0.9, -2.0, 0.0, 0.4]
    _, drawn = distributions(logits, how)
    count = 20_000
    token, _, _ = draw(torch.tensor([logits]).repeat(count, 1), torch.from_numpy(uniforms(5, count)), how)
    seen = torch.bincount(token, minlength=len(logits)).tolist()
    assert [n == 0 for n in seen] == [p == 0 for p in drawn]
    chi_square = sum((n - p * count) ** 2 / (p * count) for n, p in zip(seen, drawn, strict=True) if p > 0)
    free = sum(p > 0 for p in drawn) - 1
    assert chi_square < free * (1 - 2 / (9 * free) + 3.719 * math.sqrt(2 / (9 * free))) ** 3


def test_rows_are_drawn_apart():
    generator = torch.Generator().manual_seed(2)
    logits, u = torch.randn(30, 13, generator=generator), torch.rand(30, dtype=torch.float64, generator=generator)
    together = draw(logits, u, sampling(0.9, 0.9, 7))
    apart = [draw(logits[i : i + 1], u[i : i + 1], sampling(0.9, 0.9, 7)) for i in range(30)]
    for whole, parts in zip(together, zip(*apart, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-6, atol=1e-6)


def test_random_numbers_belong_to_the_request():
    seeds = {request_seed("train", 0, step, "s:1", index) for step in range(20) for index in range(8)}
    assert len(seeds) == 160 and all(0 <= s < 2**128 for s in seeds)
    one = uniforms(request_seed("a", 1), 50)
    assert np.array_equal(one[:20], uniforms(request_seed("a", 1), 20))
    assert not np.array_equal(one, uniforms(request_seed("a", 2), 50))
    assert one.min() >= 0 and one.max() < 1

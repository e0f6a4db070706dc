"""What is sampled and not used yet comes out of a checkpoint's bytes as it went in, to the bit."""

import numpy as np

from gcpo_mcore.rollout.engine import Leftover
from gcpo_mcore.rollout.kept import pack, unpack
from gcpo_mcore.samples import Sample


def sample(index: int, tokens: int, experts: bool) -> Sample:
    random = np.random.default_rng(index)
    return Sample(
        index=index,
        response_ids=random.integers(0, 99, tokens),
        response_text=f"ünïcode {index}\n",
        rollout_logp=random.normal(size=tokens).astype(np.float32),
        sampling_logp=random.normal(size=tokens).astype(np.float32),
        token_versions=np.arange(tokens, dtype=np.int32) if index % 2 else np.zeros(0, np.int32),
        routed_experts=random.integers(0, 8, (tokens + 3, 2, 2)).astype(np.int16) if experts else None,
        truncated=index == 1,
        weight_version=7 + index,
    )


def test_what_is_packed_is_unpacked():
    rounds = [
        {("hard:3", 0): Leftover(sample(0, 5, True), True), ("hard:3", 1): Leftover(sample(1, 1, False), False)},
        {},
        {("easy:9", 2): Leftover(sample(2, 3, False), True)},
    ]
    found = unpack(pack(rounds))
    assert [list(of) for of in found] == [list(of) for of in rounds]
    for mine, theirs in zip(found, rounds, strict=True):
        for key, leftover in theirs.items():
            assert mine[key].is_whole == leftover.is_whole
            for name, value in vars(leftover.sample).items():
                other = getattr(mine[key].sample, name)
                if isinstance(value, np.ndarray):
                    assert other.dtype == value.dtype and other.shape == value.shape
                    assert other.tobytes() == value.tobytes(), name
                else:
                    assert other == value, name


def test_nothing_is_a_list_of_nothing():
    assert unpack(pack([{}, {}])) == [{}, {}]

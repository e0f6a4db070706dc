"""From the scores of the parts to one reward."""

import math
from collections.abc import Mapping

from gcpo_mcore.base.config import LARGEST_FLOAT32
from gcpo_mcore.rewarding.config import RewardConfig


def fits_float32(value: float) -> bool:
    """Whether a score is a finite number in float32, which training computes in."""
    return math.isfinite(value) and abs(value) <= LARGEST_FLOAT32


def compose(config: RewardConfig, scores: Mapping[str, float]) -> tuple[float, dict[str, float], bool]:
    """(reward, parts, is_accurate) from the raw score of every part.

    A part whose gate is closed scores 0, everywhere: in the sum, in the records and for accuracy.
    Gates look at raw scores, so their order does not matter. ValueError if float32 cannot hold the reward.
    """
    parts = {}
    for name, part in config.parts.items():
        closed = part.gate is not None and scores[part.gate] < config.accuracy_threshold
        parts[name] = 0.0 if closed else scores[name]
    reward = sum(part.weight * parts[name] for name, part in config.parts.items())
    if config.clip is not None:
        reward = min(max(reward, config.clip.lowest), config.clip.highest)
    if not fits_float32(reward):
        largest = max(config.parts, key=lambda name: abs(config.parts[name].weight * parts[name]))
        raise ValueError(f"{largest}: with its weight the reward is {reward:g}, which float32 cannot hold")
    return reward, parts, parts[config.accuracy] >= config.accuracy_threshold

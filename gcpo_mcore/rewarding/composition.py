"""From the scores of the parts to one reward."""

from collections.abc import Mapping

from gcpo_mcore.rewarding.config import RewardConfig


def compose(config: RewardConfig, scores: Mapping[str, float]) -> tuple[float, dict[str, float], bool]:
    """(reward, parts, is_accurate) from the raw score of every part.

    A part whose gate is closed scores 0, everywhere: in the sum, in the records and for accuracy.
    Gates look at raw scores, so their order does not matter.
    """
    parts = {}
    for name, part in config.parts.items():
        closed = part.gate is not None and scores[part.gate] < config.accuracy_threshold
        parts[name] = 0.0 if closed else scores[name]
    reward = sum(part.weight * parts[name] for name, part in config.parts.items())
    if config.clip is not None:
        reward = min(max(reward, config.clip.lowest), config.clip.highest)
    return reward, parts, parts[config.accuracy] >= config.accuracy_threshold

"""0.0 for a response that leaves `cache_tokens` of `max_tokens` free, down to -1.0 for one that reaches the limit.

DAPO's soft overlong punishment (arXiv 2503.14476, equation 13), with L the response's length in tokens:

    0                                            L <= max_tokens - cache_tokens
    (max_tokens - cache_tokens - L)/cache_tokens     up to max_tokens
    -1                                           beyond
"""

from typing import Self

from pydantic import PositiveInt, model_validator

from gcpo_mcore.base.config import Config
from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Answer


@rewards.register
class Overlong(Config):
    """max_tokens: the limit, normally rollout.sampling.max_response_tokens. cache_tokens: the width of the slope."""

    max_tokens: PositiveInt
    cache_tokens: PositiveInt

    @model_validator(mode="after")
    def _slope_fits(self) -> Self:
        if self.cache_tokens > self.max_tokens:
            raise ValueError(f"cache_tokens {self.cache_tokens} is more than max_tokens {self.max_tokens}")
        return self

    def __call__(self, answers: list[Answer]) -> list[float]:
        free = self.max_tokens - self.cache_tokens
        return [min(0.0, max(-1.0, (free - a.response_tokens) / self.cache_tokens)) for a in answers]

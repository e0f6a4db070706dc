"""1.0 if the whole response has the wanted form, else 0.0."""

import re

from pydantic import field_validator

from gcpo_mcore.base.config import Config
from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Answer


@rewards.register
class Format(Config):
    """pattern: a Python regular expression that the response has to match from end to end ('.' takes line ends too)."""

    pattern: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern, re.DOTALL)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern

    def __call__(self, answers: list[Answer]) -> list[float]:
        # re keeps compiled patterns, and a pattern that backtracks for ever meets the pool's deadline.
        return [float(re.fullmatch(self.pattern, a.response_text, re.DOTALL) is not None) for a in answers]

"""Minus the share of n-grams that the response has said before: 0.0 without repetition, near -1.0 for a loop."""

from typing import Literal

from pydantic import PositiveInt

from gcpo_mcore.base.config import Config
from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Answer


@rewards.register
class Repetition(Config):
    """-(1 - distinct n-grams / n-grams), over words or characters; 0.0 for a response shorter than one n-gram.

    unit    'words' (split at white space) or 'characters' (for languages without spaces, and loops without them)
    ngram   n, in units
    """

    unit: Literal["words", "characters"]
    ngram: PositiveInt

    def __call__(self, answers: list[Answer]) -> list[float]:
        return [self._score(a.response_text) for a in answers]

    def _score(self, text: str) -> float:
        units = text.split() if self.unit == "words" else text
        total = len(units) - self.ngram + 1
        if total < 1:
            return 0.0
        # By hash: the n-grams of a long response would fill the worker's memory.
        distinct = len({hash(tuple(units[i : i + self.ngram])) for i in range(total)})
        return distinct / total - 1.0

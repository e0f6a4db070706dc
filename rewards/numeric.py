"""1.0 if the extracted answer is a number close to the reference, else 0.0."""

from fractions import Fraction

from pydantic import NonNegativeFloat

from gcpo_mcore.base.config import Config
from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.extraction import Extraction
from gcpo_mcore.rewarding.numbers import Number, read_number


@rewards.register
class Numeric(Config):
    """|answer - reference| <= max(absolute_tolerance, relative_tolerance * |reference|), in exact arithmetic.

    Both tolerances 0: equal in value (0.50 = 1/2). A percent sign on one side only is a unit or a factor of 100,
    whichever fits. A reference that is no number raises ValueError: the answer is not graded.
    """

    extraction: Extraction
    absolute_tolerance: NonNegativeFloat
    relative_tolerance: NonNegativeFloat

    def __call__(self, answers: list[Answer]) -> list[float]:
        return [self._score(a) for a in answers]

    def _score(self, answer: Answer) -> float:
        references = [self._reference(r) for r in answer.references]
        text = self.extraction(answer.response_text)
        given = None if text is None else read_number(text)
        return float(given is not None and any(self._close(r, given) for r in references))

    def _close(self, reference: Number, given: Number) -> bool:
        absolute, relative = Fraction(self.absolute_tolerance), Fraction(self.relative_tolerance)
        return any(abs(g - r) <= max(absolute, relative * abs(r)) for r, g in reference.pairs(given))

    @staticmethod
    def _reference(text: str) -> Number:
        number = read_number(text)
        if number is None:
            raise ValueError(f"the reference answer {text[:80]!r} is not a number")
        return number

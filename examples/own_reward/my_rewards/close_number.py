"""1 for the reference number; less, down to 0, the further the answer is from it: 1 - |answer - reference| / reach."""

from pydantic import PositiveFloat

from gcpo_mcore.base.config import Config
from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.extraction import Extraction


@rewards.register
class CloseNumber(Config):
    """How near the extracted number is to the reference; reach: so far away, and further, scores 0."""

    extraction: Extraction
    reach: PositiveFloat  # no default here: values live in yaml

    def __call__(self, answers: list[Answer]) -> list[float]:
        """A score in [0, 1] for each answer."""
        return [self._score(answer) for answer in answers]

    def _score(self, answer: Answer) -> float:
        text = self.extraction(answer.response_text)
        try:
            distance = abs(float(text or "") - float(answer.reference))
        except ValueError:  # no number
            return 0.0
        return max(0.0, 1.0 - distance / self.reach)

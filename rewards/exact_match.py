"""1.0 if the extracted answer is a reference, character by character, else 0.0."""

from gcpo_mcore.base.config import Config
from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.extraction import Extraction


@rewards.register
class ExactMatch(Config):
    """Both sides are stripped of white space first.

    extraction     where the answer is in the response
    ignore_case    'B' equals 'b'
    ignore_commas  '1,234' equals '1234'
    """

    extraction: Extraction
    ignore_case: bool
    ignore_commas: bool

    def __call__(self, answers: list[Answer]) -> list[float]:
        return [self._score(a) for a in answers]

    def _score(self, answer: Answer) -> float:
        given = self.extraction(answer.response_text)
        return float(given is not None and self._plain(given) in [self._plain(r) for r in answer.references])

    def _plain(self, text: str) -> str:
        text = text.strip()
        if self.ignore_commas:
            text = text.replace(",", "")
        return text.casefold() if self.ignore_case else text

r"""1.0 if the extracted answer names the reference's letter, else 0.0: B, (b), \text{(B)}, B) 42, answer: B."""

from gcpo_mcore.base.config import Config
from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.extraction import Extraction
from gcpo_mcore.rewarding.letter import choice_letter


@rewards.register
class MultipleChoice(Config):
    """extraction: where the answer is in the response; it has to begin with the letter there.

    An answer that names several letters is wrong. A reference that is no letter raises ValueError: not graded.
    """

    extraction: Extraction

    def __call__(self, answers: list[Answer]) -> list[float]:
        return [self._score(a) for a in answers]

    def _score(self, answer: Answer) -> float:
        letters = {r: choice_letter(r) for r in answer.references}
        for reference, letter in letters.items():
            if letter is None:
                raise ValueError(f"the reference answer {reference[:80]!r} is not the letter of a choice")
        given = self.extraction(answer.response_text)
        return float(given is not None and choice_letter(given) in letters.values())

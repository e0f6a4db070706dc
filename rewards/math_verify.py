r"""1.0 if the answer equals a reference as mathematics (1/2 = 0.5 = \frac{1}{2}), else 0.0.

Both are read whole, by gcpo_mcore/rewarding/mathematics, or not at all: what is not read whole is compared as text, so
that nothing is right because of a part that was dropped. The name is that of the library that this reward once called,
https://github.com/huggingface/Math-Verify; docs/rewards.md compares the two, case by case.
"""

from pydantic import PositiveInt

from gcpo_mcore.base.config import Config
from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.extraction import Extraction
from gcpo_mcore.rewarding.letter import choice_letter, is_choice
from gcpo_mcore.rewarding.mathematics.agreement import agree, is_read
from gcpo_mcore.rewarding.mathematics.echo import is_echo
from gcpo_mcore.rewarding.mathematics.prose import answer_in_prose
from gcpo_mcore.rewarding.numbers import read_number


@rewards.register
class MathVerify(Config):
    """extraction: where the answer is in the response. max_chars: a longer answer scores 0; of prose only so many last
    characters are searched.

    An answer that repeats a calculation of the prompt scores 0, and so does one that names several for one.
    """

    extraction: Extraction
    max_chars: PositiveInt

    def __call__(self, answers: list[Answer]) -> list[float]:
        return [self._score(a) for a in answers]

    def _score(self, answer: Answer) -> float:
        given = self._given(answer.response_text)
        if given is None or len(given) > self.max_chars or is_echo(given, answer.prompt_text, answer.references):
            return 0.0
        return float(any(_is_right(reference, given) for reference in answer.references))

    def _given(self, response: str) -> str | None:
        given = self.extraction(response)
        return given if given is None or self.extraction.ANSWER_ONLY else answer_in_prose(given[-self.max_chars :])

    def doubt(self, reference: str) -> str | None:
        """What to tell a person about a reference answer; None if it is read whole."""
        is_known = read_number(reference) is not None or is_choice(reference) or is_read(reference)
        return None if is_known else "compared as text only, as they are not read whole as mathematics"


def _is_right(reference: str, given: str) -> bool:
    if is_choice(reference):
        return choice_letter(given) == choice_letter(reference)
    return agree(reference, given)

r"""1.0 if the answer equals a reference as mathematics (1/2 = 0.5 = \frac{1}{2}), else 0.0.

Uses Hugging Face's math-verify, https://github.com/huggingface/Math-Verify. Hostile input
(9^9^9^9) keeps sympy busy for ever: the worker pool's deadline ends it, so math-verify's own
time-outs, which need SIGALRM in the main thread, are off.

What it gets right and wrong, case by case: docs/rewards.md.
"""

import logging

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from pydantic import PositiveInt

from gcpo_mcore.base.config import Config
from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.extraction import Extraction
from gcpo_mcore.rewarding.letter import choice_letter
from gcpo_mcore.rewarding.notation import as_math, tidy
from gcpo_mcore.rewarding.numbers import read_number

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns on every call that its time-outs are off

FORMS = [LatexExtractionConfig(), ExprExtractionConfig()]


@rewards.register
class MathVerify(Config):
    """extraction: where the answer is in the response. max_chars: only its last `max_chars` characters are parsed.

    ValueError, so that the answer is not graded, if no reference agrees and one of them is not mathematics.
    """

    extraction: Extraction
    max_chars: PositiveInt

    def __call__(self, answers: list[Answer]) -> list[float]:
        return [self._score(a) for a in answers]

    def _score(self, answer: Answer) -> float:
        given = self.extraction(answer.response_text)
        if given is None:
            return 0.0
        given = given[-self.max_chars :]
        if self.extraction.ANSWER_ONLY:
            given = tidy(given)
        unreadable = None
        for reference in answer.references:
            try:
                if self._equal(tidy(reference), given):
                    return 1.0
            except UnreadableReference as error:
                unreadable = error
        if unreadable:
            raise unreadable
        return 0.0

    def _equal(self, reference: str, given: str) -> bool:
        verdict = _compare_plain(reference, given)
        if verdict is not None:
            return verdict
        gold = parse(as_math(reference), FORMS, parsing_timeout=None)
        if not gold:
            raise UnreadableReference(f"the reference answer {reference[:80]!r} does not parse as mathematics")
        parsed = parse(as_math(given) if self.extraction.ANSWER_ONLY else given, FORMS, parsing_timeout=None)
        # gold first: verify is not symmetric; x > 3 for (3, oo) as well as the other way round
        return verify(gold, parsed, allow_set_relation_comp=True, timeout_seconds=None)


class UnreadableReference(ValueError):
    """A reference answer that math-verify cannot parse."""


def _compare_plain(reference: str, given: str) -> bool | None:
    """The verdict on two numbers or two letters of choices, where it is certain; None: math-verify has to look."""
    letters = choice_letter(reference), choice_letter(given)
    if None not in letters:
        return letters[0] == letters[1]
    left, right = read_number(reference), read_number(given)
    if left is None or right is None:
        return None
    if any(a == b for a, b in left.pairs(right)):
        return True
    return False if left.is_whole and right.is_whole else None  # math-verify rounds decimals

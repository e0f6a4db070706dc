r"""1.0 if the answer equals the reference as mathematics (1/2 = 0.5 = \frac{1}{2}), else 0.0.

Uses Hugging Face's math-verify, https://github.com/huggingface/Math-Verify. Hostile input
(9^9^9^9) keeps sympy busy for ever: the worker pool's deadline ends it, so math-verify's own
time-outs, which need SIGALRM in the main thread, are off.
"""

import logging
import re
from fractions import Fraction

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from pydantic import PositiveInt

from gcpo_mcore.config.part import Config
from gcpo_mcore.registry import rewards
from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.extraction import Extraction

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns on every call that its time-outs are off

FORMS = [LatexExtractionConfig(), ExprExtractionConfig()]
PLAIN_NUMBER = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d{1,100})(\.\d{1,100}|/0*[1-9]\d{0,99})?")
MATH_MARKS = ("$", r"\boxed", r"\(", r"\[")


@rewards.register
class MathVerify(Config):
    """extraction: where the answer is in the response. max_chars: only its last `max_chars` characters are parsed."""

    extraction: Extraction
    max_chars: PositiveInt

    def __call__(self, answers: list[Answer]) -> list[float]:
        return [self._score(a) for a in answers]

    def _score(self, answer: Answer) -> float:
        given = self.extraction(answer.response_text)
        if given is None:
            return 0.0
        given, reference = given[-self.max_chars :].strip(), answer.reference.strip()
        quick = _compare_plain(reference, given)
        if quick is not None:
            return float(quick)
        gold = parse(_as_math(reference), FORMS, parsing_timeout=None)
        if not gold:
            raise ValueError(f"the reference answer {reference[:80]!r} does not parse as mathematics")
        parsed = parse(_as_math(given) if self.extraction.ANSWER_ONLY else given, FORMS, parsing_timeout=None)
        return float(verify(gold, parsed, timeout_seconds=None))  # gold first: verify is not symmetric


def _compare_plain(reference: str, given: str) -> bool | None:
    """The verdict where both are plain numbers and it is certain; None where math-verify has to look."""
    if not (PLAIN_NUMBER.fullmatch(reference) and PLAIN_NUMBER.fullmatch(given)):
        return None
    reference, given = reference.replace(",", ""), given.replace(",", "")
    if Fraction(reference) == Fraction(given):
        return True
    whole_numbers = not any(mark in reference + given for mark in "./")
    return False if whole_numbers else None  # math-verify rounds decimals


def _as_math(text: str) -> str:
    """`text` in dollar signs, unless it is marked as mathematics already."""
    return text if any(mark in text for mark in MATH_MARKS) else f"${text}$"

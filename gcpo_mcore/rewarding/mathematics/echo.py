"""Whether an answer only repeats what was asked: 6 * 7, where the question is what 6 * 7 is."""

import re
from fractions import Fraction

from gcpo_mcore.rewarding.mathematics.answers import Named, Related, Scalar, read
from gcpo_mcore.rewarding.mathematics.signs import usual
from gcpo_mcore.rewarding.mathematics.tree import Apply, Expression, UnreadableError, integer, operations

LAYOUT = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\displaystyle|\\[,;:! ]|[\s${}]|\\[()\[\]]")
SPELLINGS = (
    (r"\\[dtc]?frac ?\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2"),
    (r"\\[dtc]?frac ?([0-9])([0-9])", r"\1/\2"),
    (r"\\(?:cdot|times|ast)(?![a-z])|\*", "*"),
    (r"\\[dt]frac", r"\\frac"),
    (r"\\div(?![a-z])", "/"),
)
FINISHED = {"negative", "pi", "euler", "imaginary", "infinity"}


def is_echo(given: str, prompt: str, references: tuple[str, ...]) -> bool:
    """Whether `given` is something to work out that stands in the prompt, and not how a reference is written."""
    form = _squeezed(given)
    if len(form) < 3 or form in {_squeezed(r) for r in references}:
        return False
    asked = _squeezed(prompt)
    if not re.search(rf"(?<![0-9.]){re.escape(form)}(?![0-9]|\.[0-9])", asked):
        return False
    try:
        answer = read(given)
    except UnreadableError:
        return False
    if isinstance(answer, Scalar):
        return not _is_finished(answer.expression)
    return isinstance(answer, Related | Named)


def _is_finished(expression: Expression) -> bool:
    """A number, a symbol, or a fraction in its lowest terms: nothing is left to do."""
    if isinstance(expression, Apply) and expression.operation == "negative":
        return _is_finished(expression.operands[0])
    if isinstance(expression, Apply) and expression.operation == "quotient":
        top, bottom = integer(expression.operands[0]), integer(expression.operands[1])
        return bool(top is not None and bottom) and Fraction(top or 0, bottom or 1).denominator == bottom != 1
    return not isinstance(expression, Apply) or operations(expression) <= FINISHED


def _squeezed(text: str) -> str:
    text = usual(text)
    for spelling, one in SPELLINGS:
        text = re.sub(spelling, one, text)
    return LAYOUT.sub("", text)

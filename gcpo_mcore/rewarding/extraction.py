"""Where in a response the answer is: a task names it in its reward's `extraction`.

`extraction: {name: boxed}` picks a rule. Another distribution adds one with an entry point in the group
`gcpo_mcore.extraction` (gcpo_mcore/base/choice.py); it must not import torch, as no reward does.
"""

import re
from collections.abc import Iterator
from typing import ClassVar

from pydantic import field_validator

from gcpo_mcore.base.choice import Choice
from gcpo_mcore.rewarding.numbers import TIMES, VULGAR
from gcpo_mcore.rewarding.thinking import THINK_END, spoken

LAST_NUMBER = re.compile(
    r"(?:\\sqrt(?:\[[0-9]+\])? ?\{?|√ ?)?"  # with a root it is none
    r"(?:(?<![\w)\]}.])[-+−])?\$?(?:"
    r"(?:[0-9]{1,100} ?)?\\[dt]?frac\{[0-9]{1,100}\}\{[0-9]{1,100}\}|"
    r"(?:[0-9]{1,100} (?=[0-9]{1,100} ?/ ?[0-9]))?"  # 2 1/2
    r"(?:[0-9][0-9,]*(?:\.[0-9]+)*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?: ?/ ?[0-9]+)*"
    rf"|[{VULGAR}])"
    rf"(?:(?: ?{TIMES} ?10)? ?(?:\^|\*\*) ?\{{?[-+−]?[0-9]+\}}?|[{VULGAR}⁰¹²³⁴-⁹])*(?:\\?%)?"
)
MAX_JOINT_CHARS = 40
SPACE = r"(?:[\s$,;~]|\\[(),;\[\] ])*"
JOINT = re.compile(
    rf"{SPACE}(?:,|;|/|(?:\\(?:text|mbox|mathrm)\{{)?\s*,?\s*(?:or|and)\s*\}}?){SPACE}", re.IGNORECASE
)  # what stands between two boxes that are one answer
SIGNS = re.compile(r"\\{1,2}(?:boxed|fbox)\{|\\.|[{}]", re.DOTALL)  # a box, anything escaped, a brace


class Extraction(Choice, kind="extraction"):
    """Kind: where the answer is. ANSWER_ONLY: what it returns is the bare answer (a formula), not prose around it."""

    ANSWER_ONLY: ClassVar[bool] = True

    def __call__(self, text: str) -> str | None:
        """The answer that the response `text` gives; None if it gives none."""
        raise TypeError(f"{type(self).__name__} extracts nothing")

    def wrap(self, answer: str) -> str:
        """The shortest response that gives `answer`."""
        raise TypeError(f"{type(self).__name__} wraps nothing")


class Whole(Extraction, option="whole"):
    """The whole response, or what follows its thinking, stripped; None if nothing is left."""

    ANSWER_ONLY: ClassVar[bool] = False

    def __call__(self, text: str) -> str | None:
        return spoken(text) or None

    def wrap(self, answer: str) -> str:
        return answer


class AfterLast(Extraction, option="after_last"):
    """What follows the last `marker` (':' or '####'), stripped; None without a marker or an answer, or in thinking."""

    marker: str

    @field_validator("marker")
    @classmethod
    def _not_empty(cls, marker: str) -> str:
        if not marker:
            raise ValueError("the marker is empty")
        return marker

    def __call__(self, text: str) -> str | None:
        searched = text if THINK_END in self.marker else spoken(text) or ""
        _, found, rest = searched.rpartition(self.marker)
        return (rest.strip() or None) if found else None

    def wrap(self, answer: str) -> str:
        return f"{self.marker} {answer}"


class Boxed(Extraction, option="boxed"):
    r"""The content of the last complete \boxed{...} or \fbox{...}, after the thinking if there was any.

    Braces are balanced (escaped ones, \{ and \}, are not counted). A box inside the thinking is not
    an answer, and neither is one in thinking that never ended. Boxes with only 'or', 'and' or a comma between
    them are one answer, with commas: who boxes two names two.
    """

    def __call__(self, text: str) -> str | None:
        return last_box(spoken(text) or "")

    def wrap(self, answer: str) -> str:
        return rf"\boxed{{{answer}}}"


class AfterThink(Extraction, option="after_think"):
    """What follows the last </think>, stripped; None if the thinking never ended."""

    ANSWER_ONLY: ClassVar[bool] = False

    def __call__(self, text: str) -> str | None:
        return (spoken(text) or None) if THINK_END in text else None

    def wrap(self, answer: str) -> str:
        return f"{THINK_END}{answer}"


class LastNumber(Extraction, option="last_number"):
    r"""The last number in the response, or after the thinking if there was any; None without one.

    With its sign, decimals, thousands commas, exponent (1e5, 2 x 10^5), fraction (1 / 3, \frac{1}{3}, the whole number
    before it: 2 1/2) and percent or dollar sign. A minus after a word or a digit is not a sign (3-5). What belongs
    together is not cut: of 1.2.3, 3/4/5, 2^3 and the root of 3 all is given, which is no number.
    """

    def __call__(self, text: str) -> str | None:
        found = LAST_NUMBER.findall(spoken(text) or "")
        return found[-1].rstrip(".,") if found else None

    def wrap(self, answer: str) -> str:
        return answer


def last_box(text: str) -> str | None:
    """The stripped content of the complete box that opens last, with those joined to it; None without one.

    One pass over the text.
    """
    boxes = sorted(_boxes(text))
    if not boxes:
        return None
    before, start, end = boxes.pop()
    contents = [text[start:end].strip()]
    while boxes:
        earlier, start, end = boxes.pop()
        between = text[end + 1 : before] if end < before else ""
        if len(between) > MAX_JOINT_CHARS or not JOINT.fullmatch(between):
            break
        before = earlier
        if text[start:end].strip() not in contents:
            contents.insert(0, text[start:end].strip())
    return ", ".join(c for c in contents if c) or None


def _boxes(text: str) -> Iterator[tuple[int, int, int]]:
    """Of every complete box: where it begins, where its content does, and where that ends."""
    open_braces: list[tuple[int, int] | None] = []  # of a box; None for any other brace
    for sign in SIGNS.finditer(text):
        if sign[0] == "}":
            opened = open_braces.pop() if open_braces else None
            if opened is not None:
                yield *opened, sign.start()
        elif sign[0].endswith(("boxed{", "fbox{")):
            open_braces.append((sign.start(), sign.end()))
        elif sign[0] == "{":
            open_braces.append(None)

r"""The answer in prose: a box, 'the answer is ...', the last formula, the last number. Never a part of one.

Formulas or numbers with only 'or', 'and' or a comma between them are one answer: who names two has named two.
"""

import re

from gcpo_mcore.rewarding.extraction import last_box
from gcpo_mcore.rewarding.mathematics.signs import usual

REASON = re.compile(r",\s+(?=(?:because|since|which|as|so|I)\b)")  # what follows is no part of the answer
STATED = re.compile(r"answer\W{0,4}(?: is|:|=)\s*:?\s*(?P<rest>[^\n]+)", re.I)
SENTENCE = re.compile(r"(?<=[.!?])(?:\s+(?=[A-Z*])|\n)|\n+")
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
NUMBER = re.compile(r"(?<![\w.,^])[-+]?\$?(?:\d[\d,]*\.?\d*|\.\d+)(?:/\d+)?(?:[eE][-+]?\d+)?%?(?![\w^])")
JOINT = re.compile(r"[\s,;]*(?:and|or|,|;|/)?\s*(?:(?:also|maybe|perhaps|possibly|even|it is|it's)\s*)?[\s,;]*", re.I)


def answer_in_prose(text: str) -> str | None:
    """The answer that a text gives; None if it gives none."""
    box = last_box(text)
    if box is not None:
        return box
    stated = STATED.findall(text)
    if stated:
        sentences = _sentences(stated[-1].strip("*_ "))
        return REASON.split(sentences[0])[0] if sentences else None
    lines = _sentences(usual(text))
    for line in reversed(lines):
        for form in (FORMULA, NUMBER):
            if found := _last(form, line):
                return found
    return lines[-1] if len(lines) == 1 else None


def _sentences(text: str) -> list[str]:
    return [s.strip() for s in SENTENCE.split(text) if s and s.strip()]


def _last(form: re.Pattern, line: str) -> str | None:
    """The last match in a line, with those before it that are joined to it."""
    found = list(form.finditer(line))
    if not found:
        return None
    kept = [found[-1]]
    for match in reversed(found[:-1]):
        if not JOINT.fullmatch(line[match.end() : kept[0].start()]):
            break
        kept.insert(0, match)
    return ", ".join(_content(match) for match in kept)


def _content(match: re.Match) -> str:
    return next((g for g in match.groups() if g), match[0]).strip().rstrip(".,")

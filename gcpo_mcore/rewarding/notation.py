"""Answers in LaTeX or Markdown, with the marks taken off that say nothing about their value."""

import re

MATH_MARKS = ("$", r"\boxed", r"\(", r"\[")
PAIRS = (("**", "**"), ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
DIGIT_GROUP = re.compile(r"(?<=[0-9])(?:\\[,!]|\{,\})(?=[0-9]{3}(?![0-9]))")  # 1\,234 and 1{,}234
SPACES = re.compile(r"\\[,;!:>]|~|\\displaystyle\b|\\q?quad\b")
TEXT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox) ?\{([^{}]*)\}")
SAME = {r"\varnothing": r"\emptyset", r"\$": "", "−": "-", "–": "-"}  # a sign: its usual form


def tidy(text: str) -> str:
    r"""`text` without surrounding marks (**x**, $x$, \text{x}), currency signs, layout spaces and a final full stop."""
    text = text.strip()
    for _ in range(len(PAIRS)):
        before = text
        for left, right in PAIRS:
            inner = text[len(left) : -len(right)]
            if text.startswith(left) and text.endswith(right) and len(text) > len(left + right) and left not in inner:
                text = inner.strip()
        if found := TEXT.fullmatch(text):
            text = found[1].strip()
        if text.endswith(".") and not text.endswith("..") and r"\right." not in text:
            text = text[:-1].strip()
        if text == before:
            break
    for sign, usual in SAME.items():
        text = text.replace(sign, usual)
    return SPACES.sub(" ", DIGIT_GROUP.sub("", text)).strip()


def as_math(text: str) -> str:
    """`text` in dollar signs, unless it is marked as mathematics already."""
    return text if any(mark in text for mark in MATH_MARKS) else f"${text}$"

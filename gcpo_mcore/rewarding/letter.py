r"""The letter of a multiple-choice answer: B, (b), B., B) 42, \text{(B)}, \textbf{(B)}\ 42, the answer is (B)."""

import re

WRAPPERS = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|boxed|mathit|bf|rm)\b|[*_${}~]|\\[ ,;!]")
LETTER = r"\(?\[?(?P<letter>[A-Za-z])(?P<close>[\])]*)"
LEADING = re.compile(
    rf"(?:(?:the )?(?:correct )?(?:answer|option|choice)(?: is)?:? ?)?{LETTER}(?P<end>$|[.:,] ?$|[.:] |(?<=[\])]) ?)",
    re.I,
)
MARKED = re.compile(r"\(([A-Za-z])\)|\b([A-Z])[).:]")
JOINED = re.compile(r".*(?:\b(?:or|and|maybe|perhaps|possibly|not|but)|[,/&])\W*([A-J])(?![A-Za-z])|\W*([A-J])\W*$")
CHOICE = re.compile(r"[A-J]\b.*|[(\[][A-Ja-j][)\]].*", re.DOTALL)


def choice_letter(text: str) -> str | None:
    """The one letter that `text` names, in upper case; None if it names none, or several."""
    plain = _plain(text)
    leading = LEADING.match(plain)
    if leading is None:
        return None
    letter = leading["letter"].upper()
    rest = plain[leading.end() :]
    # '(A), (B)', 'A. or B.' and '(B) or C' bet on two letters: that is no answer.
    others = {m.upper() for m in MARKED.findall(rest) for m in m if m} | {
        m for found in JOINED.findall(rest) for m in found if m
    }
    return None if others - {letter} else letter


def is_choice(text: str) -> bool:
    """Whether a reference answer is the letter of a choice, A to J, rather than a variable: b is one, (b) is not."""
    return choice_letter(text) is not None and CHOICE.fullmatch(_plain(text)) is not None


def _plain(text: str) -> str:
    return " ".join(WRAPPERS.sub(" ", text[:2000]).split())

r"""The letter of a multiple-choice answer: B, (b), B., B) 42, \text{(B)}, \textbf{(B)}\ 42, the answer is (B)."""

import re

WRAPPERS = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|boxed|mathit|bf|rm)\b|[*_${}~]|\\[ ,;!]")
LETTER = r"\(?\[?(?P<letter>[A-Za-z])(?P<close>[\])]*)"
LEADING = re.compile(
    rf"(?:(?:the )?(?:correct )?(?:answer|option|choice)(?: is)?:? ?)?{LETTER}(?P<end>$|[.:,] ?$|[.:] |(?<=[\])]) ?)",
    re.I,
)


def choice_letter(text: str) -> str | None:
    """The one letter that `text` names, in upper case; None if it names none, or several."""
    plain = " ".join(WRAPPERS.sub(" ", text[:2000]).split())
    found = LEADING.match(plain)
    if found is None:
        return None
    letter = found["letter"].upper()
    rest = plain[found.end() :]
    # '(A), (B)' and 'A. or B.' bet on two letters: that is no answer.
    others = {m.upper() for m in re.findall(r"\(([A-Za-z])\)|\b([A-Z])[).:]", rest) for m in m if m}
    return None if others - {letter} else letter

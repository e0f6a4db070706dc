"""Whether two texts are the same answer: `agree`. What is not read whole is compared as text, and never in parts."""

import re

from gcpo_mcore.rewarding.mathematics.answers import is_wordy, read
from gcpo_mcore.rewarding.mathematics.equality import equal
from gcpo_mcore.rewarding.mathematics.signs import bare
from gcpo_mcore.rewarding.mathematics.tokens import tokens_of
from gcpo_mcore.rewarding.mathematics.tree import UnreadableError
from gcpo_mcore.rewarding.mathematics.words import plain_words

MAX_CHARS = 4000
UPRIGHT_WORDS = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mbox) ?\{([^{}]*)\}")


def agree(reference: str, given: str) -> bool:
    """Whether `given` is the answer `reference`: as text, or as mathematics if both are read whole."""
    if len(reference) > MAX_CHARS or len(given) > MAX_CHARS:
        return reference.strip() == given.strip()
    if text_form(reference) == text_form(given) or _unwrapped(reference) == _unwrapped(given):
        return True
    try:
        return equal(read(reference), read(given))
    except (UnreadableError, RecursionError):
        return False


def is_read(text: str) -> bool:
    """Whether an answer is read whole, as mathematics or as words; one that is not is compared as text."""
    try:
        read(text)
    except (UnreadableError, RecursionError):
        return is_wordy(text)
    return True


def _unwrapped(text: str) -> str:
    r"""A text in which \text{n is even} and n \text{ is even} are one."""
    return " ".join(UPRIGHT_WORDS.sub(r" \1 ", bare(text)).replace("$", " ").split())


def text_form(text: str) -> str | tuple[tuple[str, str], ...]:
    """A text without its layout: words in lower case, a formula as its tokens, without braces around a single one."""
    plain = bare(text)
    if is_wordy(plain):
        return plain_words(plain)
    try:
        tokens = [(t.kind, " ".join(t.text.split())) for t in tokens_of(plain.replace("$", ""))]
    except UnreadableError:
        return " ".join(plain.split())
    kept: list[tuple[str, str]] = []
    for token in tokens:
        kept.append(token)
        if len(kept) > 2 and kept[-3] == ("sign", "{") and token == ("sign", "}"):
            kept[-3:] = [kept[-2]]
    return tuple(kept)

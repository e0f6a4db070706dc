"""Whether two texts are the same answer: `agree`. What is not read whole is compared as text, and never in parts."""

import re

from gcpo_mcore.rewarding.mathematics.answers import Words, is_wordy, read
from gcpo_mcore.rewarding.mathematics.equality import equal
from gcpo_mcore.rewarding.mathematics.signs import bare
from gcpo_mcore.rewarding.mathematics.tokens import spell, tokens_of
from gcpo_mcore.rewarding.mathematics.tree import UnreadableError
from gcpo_mcore.rewarding.mathematics.words import plain_words

MAX_CHARS = 4000


def agree(reference: str, given: str) -> bool:
    """Whether `given` is the answer `reference`: as text, or as mathematics if both are read whole."""
    if len(reference) > MAX_CHARS or len(given) > MAX_CHARS:
        return reference.strip() == given.strip()
    if text_form(reference) == text_form(given):
        return True
    try:
        return equal(read(reference), read(given))
    except (UnreadableError, RecursionError):
        return False


def is_read(text: str) -> bool:
    """Whether an answer is read whole, as mathematics or as words; one that is not is compared as text."""
    try:
        return isinstance(read(text), Words) or True
    except (UnreadableError, RecursionError):
        return is_wordy(text)


def text_form(text: str) -> str:
    """A text without its layout: words in one case, formulas with one spelling of each macro and no spaces."""
    plain = bare(text)
    if is_wordy(plain) and len(plain) > 1:
        return plain_words(plain)
    try:
        tokens = tokens_of(plain.replace("$", ""))
    except UnreadableError:
        return re.sub(r"\s+", " ", plain)
    loose = ("number", "letters", "text")  # '4 2' is not 42
    return "".join(
        (" " if at and token.spaced and {token.kind, tokens[at - 1].kind} <= set(loose) else "") + spell([token])
        for at, token in enumerate(tokens)
    )

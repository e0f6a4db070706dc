"""Answers in words: yes, Monday, a parabola, no solution; and numbers in words: three, one half, 1.2 million."""

import re
from fractions import Fraction

UP_TO_NINETEEN = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
SMALL = {word: number for number, word in enumerate(UP_TO_NINETEEN.split(" "))}
BY_TEN = "twenty thirty forty fifty sixty seventy eighty ninety"
TENS = {word: 10 * number for number, word in enumerate(BY_TEN.split(" "), 2)}
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
PARTS |= {"halves": 2, **{f"{word}s": n for word, n in PARTS.items()}}
EMPTY = {"no solution", "no solutions", "no real solution", "no real solutions", "empty set", "there are no solutions"}
REALS = {"all real numbers", "all reals", "real numbers", "all real x", "all x"}
ARTICLES = re.compile(r"^(?:an?|the)\s+(?=\S)")


def number_in_words(text: str) -> Fraction | None:
    """The number that words name; None if they name none, or more than one."""
    words = text.casefold().replace("-", " ").replace(" and a half", " + half").split()
    if not words or len(words) > 12:
        return None
    if words[-2:] == ["+", "half"]:
        whole = number_in_words(" ".join(words[:-2]))
        return None if whole is None else whole + Fraction(1, 2)
    if words[-1] in PARTS:
        count = 1 if words[:-1] in ([], ["a"], ["one"]) else _count(words[:-1])
        return None if count is None else Fraction(count, PARTS[words[-1]])
    count = _count(words)
    return None if count is None else Fraction(count)


def _count(words: list[str]) -> int | None:
    """A whole number: two hundred and five."""
    total, current, last = 0, 0, ""
    for word in words:
        if word == "and" and last in SCALES:
            continue
        if word == "a" and not last:
            current = 1
        elif word in SMALL and (not last or last in SCALES or (last in TENS and 0 < SMALL[word] < 10)):
            current += SMALL[word]
        elif word in TENS and (not last or last in SCALES):
            current += TENS[word]
        elif word in SCALES:
            current = (current if last else 1) * SCALES[word]
            if SCALES[word] >= 1000:
                total, current = total + current, 0
        else:
            return None
        last = word
    return total + current


def plain_words(text: str) -> str:
    """Words in one form: lower case, single spaces, no article before them, no full stop behind."""
    return ARTICLES.sub("", " ".join(text.casefold().split()).strip(".! "))

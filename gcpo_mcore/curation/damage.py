"""Golden answers made worse on purpose, so that a run shows how much their quality matters.

Each is a pure function of text and random generator. A golden answer is seen as steps and a final part: the shortest
end of the text in which the reward's own extraction finds the same answer (':105', '\\boxed{42}.').
"""

import random
import re

from gcpo_mcore.rewarding.extraction import Extraction
from gcpo_mcore.rewarding.letter import choice_letter

NUMBER = re.compile(r"[0-9]+")
LETTERS = "ABCD"


def split(text: str, extraction: Extraction) -> tuple[str, str, str] | None:
    """The text as (steps, final part, answer); None if the extraction finds no answer, or only in the whole text."""
    answer = extraction(text)
    if answer is None or answer not in text:
        return None
    for start in range(text.rindex(answer), 0, -1):
        if extraction(text[start:]) == answer:
            return text[:start], text[start:], answer
    return None


def steps_of(body: str, separator: str) -> list[str]:
    """The body cut behind every match of the regular expression `separator`; joined they are the body again."""
    ends = [found.end() for found in re.finditer(separator, body) if found.end() < len(body)]
    return [body[a:b] for a, b in zip([0, *ends], [*ends, len(body)], strict=True) if a < b]


def truncate(body: str, separator: str, share: float) -> str:
    """Drops the last `share` of the steps, rounded down in number: the answer then comes without its reasons."""
    steps = steps_of(body, separator)
    kept = len(steps) - int(share * len(steps))
    return "".join(steps[:kept])


def corrupt(body: str, separator: str, rate: float, r: random.Random) -> tuple[str, int]:
    """One digit changed in a step with a number, with probability `rate` for each; and how many were."""
    steps, changed = steps_of(body, separator), 0
    for i, step in enumerate(steps):
        numbers = list(NUMBER.finditer(step))
        if numbers and r.random() < rate:
            number = r.choice(numbers)
            steps[i] = step[: number.start()] + _other_number(number[0], r) + step[number.end() :]
            changed += 1
    return "".join(steps), changed


def wrong(final: str, answer: str, r: random.Random) -> str | None:
    """The final part with another answer of the same kind: a digit or the letter changed; None if it has neither."""
    place = final.rindex(answer)
    if letter := choice_letter(answer):
        spot = answer.upper().index(letter)
        other = answer[:spot] + r.choice([c for c in LETTERS if c != letter]) + answer[spot + 1 :]
    elif numbers := list(NUMBER.finditer(answer)):
        number = r.choice(numbers)
        other = answer[: number.start()] + _other_number(number[0], r) + answer[number.end() :]
    else:
        return None
    return final[:place] + other + final[place + len(answer) :]


def _other_number(number: str, r: random.Random) -> str:
    """Replaces one digit; the first of several does not become 0."""
    i = r.randrange(len(number))
    lowest = 1 if i == 0 and len(number) > 1 and number[0] != "0" else 0
    digit = r.choice([d for d in range(lowest, 10) if str(d) != number[i]])
    return f"{number[:i]}{digit}{number[i + 1 :]}"

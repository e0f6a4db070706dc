"""Thinking in a response: what stands between <think> and </think>, either of which may be out of sight.

A chat template may have written <think> into the prompt, and a long response is cut before a reward sees it. A reward's
text then begins with <think>, so that every reward knows where the thinking is from the text alone.
"""

THINK_START, THINK_END = "<think>", "</think>"


def opens_thinking(prompt_text: str) -> bool:
    """Whether a prompt ends with <think>, so that the response begins inside the thinking."""
    return prompt_text.rstrip().endswith(THINK_START)


def shown_response(prompt_text: str, response: str, max_chars: int) -> str:
    """The last `max_chars` characters of a response, behind a <think> where they begin inside the thinking.

    A tag that the cut would halve goes with what is cut off.
    """
    cut = max(0, len(response) - max_chars)
    cut = max(cut, *(_end_of_halved(tag, response, cut) for tag in (THINK_START, THINK_END)))
    start, end = response.rfind(THINK_START, 0, cut), response.rfind(THINK_END, 0, cut)
    is_inside = opens_thinking(prompt_text) if start == end else start > end
    shown = response[cut:]
    return THINK_START + shown if is_inside and not shown.lstrip().startswith(THINK_START) else shown


def _end_of_halved(tag: str, response: str, cut: int) -> int:
    place = response.find(tag, max(0, cut - len(tag) + 1), cut + len(tag) - 1)
    return cut if place < 0 else place + len(tag)


def spoken(text: str) -> str | None:
    """What is not thinking, stripped: all of a response without any, what follows the last </think> of another.

    None if the response ends inside the thinking.
    """
    if text.rfind(THINK_START) > text.rfind(THINK_END):
        return None
    return text.rpartition(THINK_END)[2].strip()

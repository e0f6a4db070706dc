"""Reference answers that the run's reward takes as text only: said before the run trains, with the rows."""

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from gcpo_mcore.rewarding.config import RewardConfig
from gcpo_mcore.samples import Prompt

log = logging.getLogger(__name__)
SHOWN = 5
LOOKED_AT = 10_000  # of a source, spread over it evenly


class PromptsByPlace(Protocol):
    """Prompts that are there, or are made, when they are asked for by their place."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Prompt: ...


def doubter(config: RewardConfig) -> Callable[[Prompt], str | None]:
    """A function that says what is to be known of a prompt's reference answers, None if nothing is: the words of the
    first `doubt` of the reward that decides accuracy, if it has any."""
    doubt = getattr(config.build()[config.accuracy], "doubt", lambda _: None)
    return lambda prompt: next(filter(None, map(doubt, (prompt.answer, *prompt.other_answers))), None)


def warn_of_doubtful(config: RewardConfig, sources: Mapping[str, PromptsByPlace], looked_at: int = LOOKED_AT) -> None:
    """One line of warning for each source that has any: how many, the first of the reasons, and the first rows.

    Of a source with more than `looked_at` prompts so many are looked at, and the line says it.
    """
    doubt = doubter(config)
    for name, prompts in sources.items():
        number = min(len(prompts), looked_at)
        places = (i * len(prompts) // number for i in range(number))
        found = [(prompt, said) for prompt in (prompts[i] for i in places) if (said := doubt(prompt)) is not None]
        if found:
            rows = ", ".join(f"{prompt.id} ({prompt.answer[:40]!r})" for prompt, _ in found[:SHOWN])
            more = ", ..." if len(found) > SHOWN else ""
            share = "" if number == len(prompts) else f" (of {number:,} looked at, of {len(prompts):,})"
            log.warning("%s: %d reference answers%s are %s: %s%s", name, len(found), share, found[0][1], rows, more)

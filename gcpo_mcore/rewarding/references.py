"""Reference answers that the run's reward takes as text only: said before the run trains, with the rows."""

import logging
from collections.abc import Callable, Iterable, Mapping

from gcpo_mcore.rewarding.config import RewardConfig
from gcpo_mcore.samples import Prompt

log = logging.getLogger(__name__)
SHOWN = 5


def doubter(config: RewardConfig) -> Callable[[Prompt], str | None]:
    """A function that says what is to be known of a prompt's reference answers, None if nothing is: the words of the
    first `doubt` of the reward that decides accuracy, if it has any."""
    doubt = getattr(config.build()[config.accuracy], "doubt", lambda _: None)
    return lambda prompt: next(filter(None, map(doubt, (prompt.answer, *prompt.other_answers))), None)


def warn_of_doubtful(config: RewardConfig, sources: Mapping[str, Iterable[Prompt]]) -> None:
    """One line of warning for each source that has any: how many, the first of the reasons, and the first rows."""
    doubt = doubter(config)
    for name, prompts in sources.items():
        found = [(prompt, said) for prompt in prompts if (said := doubt(prompt)) is not None]
        if found:
            rows = ", ".join(f"{prompt.id} ({prompt.answer[:40]!r})" for prompt, _ in found[:SHOWN])
            more = ", ..." if len(found) > SHOWN else ""
            log.warning("%s: %d reference answers are %s: %s%s", name, len(found), found[0][1], rows, more)

"""What a reward is given, and what it has to be."""

from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Answer:
    """One response to be scored; plain data that crosses a process boundary.

    prompt_text       the prompt as rendered
    response_text     the decoded response, its last `max_response_chars` characters if it is longer; where that begins
                      inside the thinking (the prompt ends with <think>, or the tag was cut off), after a <think>
    reference         the reference answer of the row, the first if it has several
    columns           every column of the row, as the data file's reader gives it (timestamps, bytes and all)
    truncated         True if the response was cut at the length limit
    response_tokens   its length in tokens, stop token included
    other_references  further reference answers, each as good as the first
    """

    prompt_text: str
    response_text: str
    reference: str
    columns: dict[str, Any] = field(default_factory=dict)
    truncated: bool = False
    response_tokens: int = 0
    other_references: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        """Every reference answer; to meet one of them is enough."""
        return (self.reference, *self.other_references)


class Reward(Protocol):
    """A callable built from its settings, or a function without any. One finite score per answer, in their order.

    It may be async: then the answers of a batch wait side by side. It runs in a worker process with a deadline and a
    memory limit. A raised exception marks the answer as not graded; it does not end the run.

    Four attributes are optional. `extraction`, the rule that finds the answer in a response: with it, tools can check
    a reference answer by writing it as a response. `worst_case_s`, how long one answer may take by the reward's own
    settings: the config is refused if the pool's wall_deadline_s is shorter. `doubt(reference)`, what a person should
    know of a reference answer (a text), or None: it is said before a run trains. `needs_network`, True: without it the
    worker has none.
    """

    def __call__(self, answers: list[Answer]) -> list[float]: ...

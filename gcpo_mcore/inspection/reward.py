"""A reward tried on answers of which one knows what they deserve, and how many it grades a second."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gcpo_mcore.inspection.finding import Finding, Level, ok
from gcpo_mcore.rewarding.grader import Grader
from gcpo_mcore.samples import Prompt, Sample

COLUMNS = ["answer", "graded", "right", "reward mean", "failed", "answers/s"]
LONG = "So it is, and so on. " * 400


@dataclass(frozen=True)
class Kind:
    """Answers of one kind: `text` makes it for the prompt at a place among all, or None; `deserves`: whether it is
    right, None if that depends."""

    words: str
    deserves: bool | None
    text: Callable[[Sequence[Prompt], int], str | None]


KINDS = (
    Kind("the golden answer", True, lambda prompts, i: prompts[i].golden_text),
    Kind("the reference, boxed", None, lambda prompts, i: f"The answer is \\boxed{{{prompts[i].answer}}}."),
    Kind("the reference alone", None, lambda prompts, i: prompts[i].answer),
    Kind("another prompt's golden answer", False, lambda prompts, i: _other(prompts, i)),
    Kind("nothing", False, lambda prompts, i: ""),
    Kind("the prompt again", False, lambda prompts, i: prompts[i].text),
    Kind("8,400 characters of no meaning", False, lambda prompts, i: LONG),
)


@dataclass(frozen=True)
class Tried:
    """What came of a kind of answers."""

    kind: Kind
    samples: list[Sample]
    seconds: float

    @property
    def right(self) -> int:
        """How many the reward calls right."""
        return sum(sample.is_accurate for sample in self.samples)

    def row(self) -> dict[str, object]:
        """Figures, in COLUMNS."""
        values = [
            self.kind.words, len(self.samples), self.right, sum(s.reward for s in self.samples) / len(self.samples),
            sum(bool(s.grading_failed) for s in self.samples), len(self.samples) / max(self.seconds, 1e-9),
        ]  # fmt: skip
        return dict(zip(COLUMNS, values, strict=True))


def try_out(grader: Grader, prompts: Sequence[Prompt]) -> list[Tried]:
    """Grades answers of every kind to the prompts; kinds that none of them has are left out."""
    tried = []
    for kind in KINDS:
        texts = [(prompt, kind.text(prompts, i)) for i, prompt in enumerate(prompts)]
        pairs = [(prompt, Sample(0, np.zeros(1, np.int32), text)) for prompt, text in texts if text is not None]
        if pairs:
            began = time.monotonic()
            grader.grade(pairs)
            tried.append(Tried(kind, [sample for _, sample in pairs], time.monotonic() - began))
    return tried


def look(tried: Sequence[Tried]) -> Iterator[Finding]:
    """Findings about answers that got what they do not deserve, and about grading that failed."""
    for one in tried:
        count, name = len(one.samples), one.kind.words
        if failed := sum(bool(sample.grading_failed) for sample in one.samples):
            why = next(sample.grading_failed for sample in one.samples if sample.grading_failed)
            remedy = "the log has the reason; reward.deadline_s is how long one may take"
            yield Finding(Level.PROBLEM, name, f"{failed:,} of {count:,} were not graded: {why}", remedy)
        if one.kind.deserves is True and one.right < count:
            remedy = "prepare check names them: mend the rows, or the reward's extraction"
            yield Finding(
                _level(count - one.right, count), name, f"{count - one.right:,} of {count:,} are called wrong", remedy
            )
        if one.kind.deserves is False and one.right:
            remedy = "the reward can be had for nothing: a model will find that out"
            yield Finding(_level(one.right, count), name, f"{one.right:,} of {count:,} are called right", remedy)
    if not any(one.right for one in tried if one.kind.deserves is not False):
        remedy = "the reward reads another form: look at its extraction, and say that form in the prompt"
        yield Finding(Level.WARNING, "the reference", "is called wrong however it is written", remedy)
    rate = sum(len(one.samples) for one in tried) / max(sum(one.seconds for one in tried), 1e-9)
    yield ok("speed", f"{rate:,.0f} answers a second, all kinds together")


def _level(count: int, of: int) -> Level:
    """A tenth of the answers is a problem; a few may be what the data has."""
    return Level.PROBLEM if count * 10 >= of else Level.WARNING


def _other(prompts: Sequence[Prompt], i: int) -> str | None:
    """The golden answer of the next prompt whose reference differs."""
    others = (prompts[(i + step) % len(prompts)] for step in range(1, len(prompts)))
    return next((p.golden_text for p in others if p.answer != prompts[i].answer and p.golden_text is not None), None)

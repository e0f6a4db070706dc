"""Grades samples in killable workers and writes the rewards into them."""

import logging
import pickle
import time
from collections import Counter
from collections.abc import Sequence

from gcpo_mcore.rewarding.answer import Answer
from gcpo_mcore.rewarding.composition import compose
from gcpo_mcore.rewarding.config import RewardConfig
from gcpo_mcore.rewarding.pool import Outcome, WorkerPool
from gcpo_mcore.rewarding.thinking import shown_response
from gcpo_mcore.samples import Prompt, Sample

log = logging.getLogger(__name__)
SHOWN_CHARS = 100


class Grader:
    """`with Grader(config) as grader: metrics = grader.grade(pairs)`. UserError if the workers cannot start."""

    def __init__(self, config: RewardConfig):
        self.config = config
        self.pool = WorkerPool(config)
        self.failure = ""  # of the last call the first sample that could not be graded, and why

    def __enter__(self) -> "Grader":
        self.pool.__enter__()
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers; never waits for a grade."""
        self.pool.close()

    def grade(self, pairs: Sequence[tuple[Prompt, Sample]]) -> dict[str, float]:
        """Sets reward, reward_parts, is_accurate and grading_failed of every sample.

        Equal answers to equal prompts are graded once. A truncated response is graded as it is. A
        sample whose grading failed has `failed_score` as its reward and is not accurate.
        Returns this rank's metrics (docs/metrics.md); failures are counted in samples.
        """
        started = time.monotonic()
        answers: dict[bytes, Answer] = {}
        keys = []
        prompt_keys: dict[int, bytes] = {}  # by id(): the samples of a group share one Prompt
        for prompt, sample in pairs:
            if id(prompt) not in prompt_keys:
                prompt_keys[id(prompt)] = pickle.dumps(
                    (prompt.text, prompt.answer, prompt.other_answers, prompt.columns)
                )
            answer = self._answer(prompt, sample)
            own = pickle.dumps((answer.response_text, answer.truncated, answer.response_tokens))
            keys.append(prompt_keys[id(prompt)] + own)
            answers.setdefault(keys[-1], answer)
        graded = zip(answers, self.pool.run(list(answers.values())), strict=True)
        outcomes = {key: self._checked(outcome) for key, outcome in graded}
        for (_, sample), key in zip(pairs, keys, strict=True):
            self._write(sample, outcomes[key])
        self._warn(list(outcomes.values()))
        failed = [(pair, outcomes[key]) for pair, key in zip(pairs, keys, strict=True) if outcomes[key].failed]
        self.failure = _shown(*failed[0]) if failed else ""
        failures = Counter(outcomes[key].failed for key in keys)
        return {
            "grading/samples": float(len(pairs)),
            "grading/distinct_samples": float(len(answers)),
            "grading/timeouts": float(failures["timeout"]),
            "grading/crashes": float(failures["crash"]),
            "grading/errors": float(failures["error"]),
            "grading/seconds": time.monotonic() - started,
        }

    def _answer(self, prompt: Prompt, sample: Sample) -> Answer:
        return Answer(
            prompt_text=prompt.text,
            response_text=shown_response(prompt.text, sample.response_text, self.config.max_response_chars),
            reference=prompt.answer,
            columns=prompt.columns,
            truncated=sample.truncated,
            response_tokens=sample.tokens,
            other_references=prompt.other_answers,
        )

    def _checked(self, outcome: Outcome) -> Outcome:
        """The outcome, or an error if its scores make no reward."""
        try:
            if outcome.scores is not None:
                compose(self.config, outcome.scores)
        except ValueError as error:
            return Outcome(None, "error", str(error))
        return outcome

    def _write(self, sample: Sample, outcome: Outcome) -> None:
        sample.grading_failed = outcome.failed
        if outcome.scores is None:
            sample.reward = self.config.failed_score
            sample.reward_parts = dict.fromkeys(self.config.parts, self.config.failed_score)
            sample.is_accurate = False
        else:
            sample.reward, sample.reward_parts, sample.is_accurate = compose(self.config, outcome.scores)

    @staticmethod
    def _warn(outcomes: Sequence[Outcome]) -> None:
        """A line for the rewards that raised, and one for those that ended their worker: unlike a time-out these are
        likely mistakes in them or in the data."""
        for failed, what in (("error", "could not be graded"), ("crash", "ended their worker")):
            if problems := [o.problem for o in outcomes if o.failed == failed]:
                log.warning("grading: %d distinct answers %s, the first: %s", len(problems), what, problems[0])


def _shown(pair: tuple[Prompt, Sample], outcome: Outcome) -> str:
    """What happened to a sample, and which it is, in one line."""
    prompt, sample = pair
    response = sample.response_text[:SHOWN_CHARS] + ("..." if len(sample.response_text) > SHOWN_CHARS else "")
    words = " ".join(outcome.problem.split())
    return f"{words} (prompt {prompt.id}, reference {prompt.answer[:SHOWN_CHARS]!a}, response {response!a})"

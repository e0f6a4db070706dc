"""The typed groups `evaluation` and `benchmark`. Protocols, sources and values: configs/benchmark/*.yaml."""

from typing import Any

from pydantic import NonNegativeInt, PositiveInt, model_validator

from gcpo_mcore.base.config import Config, Free
from gcpo_mcore.base.errors import UserError
from gcpo_mcore.rewarding.config import RewardConfig
from gcpo_mcore.rollout.config import Sampling


class EvaluationConfig(Config):
    """Held-out accuracy during training: every `every_steps` (0: never), at the start if `at_start`, and at the end.

    `beside` names other Hugging Face folders that tools/evaluate.py puts into the same table; `folder`, `benchmarks`
    and `problems_per_chunk` are for its benchmarks only.
    """

    every_steps: NonNegativeInt
    at_start: bool
    samples_per_prompt: PositiveInt
    sampling: Sampling
    beside: list[str]
    folder: str
    benchmarks: str
    problems_per_chunk: PositiveInt


class Hub(Config):
    """A data set on the Hugging Face hub, read with the `datasets` package if there is no local file."""

    name: str
    subset: str | None
    split: str


class Columns(Config):
    """The names of the columns. options: of the choices of a multiple-choice problem, shown in the prompt."""

    problem: str
    answer: str
    options: str | None


class Benchmark(Config):
    """One set of problems and how they are asked, sampled and graded.

    protocol, source      for the reader of a result: what is measured, and where the problems are from
    path                  a local .jsonl or .parquet file; it comes first
    answer_after          the reference is what follows the last of these in the answer column ('####'); null: all of it
    prompt                the user's message; {problem} and {options} stand for the row's columns
    chat_template         whether the message goes through the tokenizer's chat template
    max_problems          only the first so many; null: all
    pass_at               the k of pass@k, each at most samples_per_problem
    reward                the verifier, as in training; its `accuracy` part decides. A truncated response is wrong

    Free is what changes neither what is asked nor what counts as right: answers that are there are then kept.
    UserError for settings that contradict each other.
    """

    protocol: Free[str]
    source: Free[str]
    path: Free[str]
    hub: Free[Hub]
    columns: Columns
    answer_after: str | None
    prompt: str
    system_prompt: str | None
    chat_template: bool
    chat_template_kwargs: dict[str, Any]
    max_prompt_tokens: PositiveInt
    max_problems: Free[PositiveInt | None]
    samples_per_problem: PositiveInt
    pass_at: Free[list[PositiveInt]]
    sampling: Sampling
    reward: RewardConfig

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> "Benchmark":
        n = self.samples_per_problem
        if "{problem}" not in self.prompt:
            raise UserError("benchmark prompt: {problem} is missing")
        if ("{options}" in self.prompt) != (self.columns.options is not None):
            raise UserError("benchmark prompt: {options} and columns.options need each other")
        if self.sampling.temperature == 0 and n > 1:
            raise UserError(f"benchmark samples_per_problem={n} with temperature 0: greedy samples are all the same")
        if max(self.pass_at, default=1) > n:
            raise UserError(f"benchmark pass_at={max(self.pass_at)} is more than samples_per_problem={n}")
        return self

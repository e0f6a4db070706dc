"""What flows through a step: prompts become groups of samples.

Token ids are the only truth: text is decoded once for the reward and the records and never
tokenised again. Log-probs are natural logarithms, one float per response token.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Prompt:
    """One row of a data set, ready to be sampled from.

    id             stable over runs and layouts: '{source}:{row number, from 0}'
    source         the name of its data source in the config ('hard')
    text           the prompt as rendered (after the chat template, if any)
    token_ids      what the model sees
    answer         the reference answer, given to the rewards
    golden_ids     the golden answer as an assistant turn, end token included; None if the row has none
    golden_text    the golden answer as written in the row
    columns        every column of the row, given to the rewards
    other_answers  further reference answers, each as good as `answer`
    """

    id: str
    source: str
    text: str
    token_ids: list[int]
    answer: str
    golden_ids: list[int] | None = None
    golden_text: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    other_answers: tuple[str, ...] = ()

    def golden_sample(self) -> "Sample":
        """The golden answer, which the prompt must have, as an ungraded sample outside of every group."""
        return Sample(index=-1, response_ids=self.golden_ids, response_text=self.golden_text, is_golden=True)


@dataclass
class Sample:
    """One response to a prompt.

    index           its place in the group, from 0
    response_ids    the tokens after the prompt, stop token included; never empty
    response_text   decoded, for rewards and records only
    truncated       True if it was cut at the length limit (no stop token)
    rollout_logp    [tokens] the engine's log-prob under the model at the sampling temperature
    sampling_logp   [tokens] the same under the distribution sampled from (after top-k and top-p)
    weight_version  the version of the actor's weights that produced it, or its first token
    token_versions  [tokens] of each token's, if they are not all `weight_version`; empty otherwise
    routed_experts  [prompt + response - 1, layers, experts per token] int16: where the engine sent the tokens that
                    it read, in a model with experts; None if that is not known
    is_golden       True for a golden answer; its rollout_logp and sampling_logp are empty
    reward          the composed score; `reward_parts` its parts by name
    is_accurate     whether the part that decides accuracy calls it right
    grading_failed  '' or why it has no true grade ('timeout', 'crash', 'error')
    """

    index: int
    response_ids: list[int]
    response_text: str
    truncated: bool = False
    rollout_logp: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    sampling_logp: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    weight_version: int = 0
    token_versions: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    routed_experts: np.ndarray | None = None
    is_golden: bool = False
    reward: float = 0.0
    reward_parts: dict[str, float] = field(default_factory=dict)
    is_accurate: bool = False
    grading_failed: str = ""


@dataclass
class Group:
    """The samples of one prompt in one step, and its graded golden answer where there is one."""

    prompt: Prompt
    samples: list[Sample]
    golden: Sample | None = None

    @property
    def accuracy(self) -> float:
        """The share of samples that are accurate; 0 for an empty group."""
        return sum(s.is_accurate for s in self.samples) / max(len(self.samples), 1)

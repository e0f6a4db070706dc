"""What flows through a step: prompts become groups of samples.

Token ids are the only truth: text is decoded once for the reward and the records and never tokenised again. Log-probs
are natural logarithms, one float per response token. A sample stays on the rank that made it until its row moves to
the ranks that train on it; what every rank knows of it are its `Facts`.
"""

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

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
    golden_text    its text, without what frames it (end tokens, for one)
    columns        every column of the row, given to the rewards
    other_answers  further reference answers, each as good as `answer`
    guided_tokens  so many of the last `token_ids` are the golden answer's first; `golden_ids` are its rest
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
    guided_tokens: int = 0

    def golden_sample(self) -> "Sample":
        """The golden answer, which the prompt must have, as an ungraded sample outside of every group."""
        assert self.golden_ids is not None and self.golden_text is not None, f"{self.id} has no golden answer"
        ids = np.asarray(self.golden_ids, np.int32)
        return Sample(index=-1, response_ids=ids, response_text=self.golden_text, is_golden=True)


@dataclass
class Facts:
    """What every rank knows of a graded sample: enough to choose and weigh it, but not its tokens.

    index           its place in the group, from 0
    tokens          the length of the response, stop token included
    truncated       True if it was cut at the length limit (no stop token)
    weight_version  the version of the actor's weights that produced it, or its first token
    is_golden       True for a golden answer
    is_beside       True for a golden answer that stands beside its group: supervised, and no sample of it
    reward          the composed score
    is_accurate     whether the part that decides accuracy calls it right
    has_routing     whether the sample knows the experts that its tokens went to
    home            the rank that has the sample, and its place in that rank's store
    """

    index: int
    tokens: int = field(default=0, kw_only=True)
    truncated: bool = field(default=False, kw_only=True)
    weight_version: int = field(default=0, kw_only=True)
    is_golden: bool = field(default=False, kw_only=True)
    is_beside: bool = field(default=False, kw_only=True)
    reward: float = field(default=0.0, kw_only=True)
    is_accurate: bool = field(default=False, kw_only=True)
    has_routing: bool = field(default=False, kw_only=True)
    home: tuple[int, int] = field(default=(0, 0), kw_only=True)


@dataclass(eq=False)
class Sample(Facts):
    """One response to a prompt, with all that its facts leave out.

    response_ids    [tokens] int32, what comes after the prompt, stop token included; never empty (a list will do)
    response_text   decoded, for rewards and records only
    rollout_logp    [tokens] the engine's log-prob under the model at the sampling temperature
    sampling_logp   [tokens] the same under the distribution sampled from (after top-k and top-p)
    token_versions  [tokens] the weights' version of each token, if they are not all `weight_version`; else empty
    routed_experts  [prompt + response - 1, layers, experts per token] int16: where the engine sent the tokens that
                    it read, in a model with experts; None if that is not known
    reward_parts    the parts of `reward` by name
    grading_failed  '' or why it has no true grade ('timeout', 'crash', 'error')

    A golden answer's rollout_logp and sampling_logp are empty.
    """

    response_ids: np.ndarray
    response_text: str
    rollout_logp: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    sampling_logp: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    token_versions: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    routed_experts: np.ndarray | None = None
    reward_parts: dict[str, float] = field(default_factory=dict)
    grading_failed: str = ""

    def __post_init__(self) -> None:
        self.response_ids = np.asarray(self.response_ids, np.int32)
        self.tokens = len(self.response_ids)
        self.has_routing = self.routed_experts is not None


AnyFacts = TypeVar("AnyFacts", bound=Facts)


@dataclass
class Group(Generic[AnyFacts]):
    """The graded samples of one prompt in one step, and its golden answer where there is one: as facts, on every rank,
    or as the samples themselves where one process has them all."""

    prompt: Prompt
    samples: list[AnyFacts]
    golden: AnyFacts | None = None

    @property
    def accuracy(self) -> float:
        """The share of samples that are accurate; 0 for an empty group."""
        return sum(s.is_accurate for s in self.samples) / max(len(self.samples), 1)


@dataclass
class Fragment:
    """A rank's share of a group before it is graded: its samples, and the golden answer if this rank grades it."""

    prompt: Prompt
    samples: list[Sample]
    golden: Sample | None = None

"""The reward of a run: named parts with weights, one of which decides what counts as right."""

import inspect
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, model_validator

from gcpo_mcore.base.config import Config, Free
from gcpo_mcore.base.errors import UserError, nearest
from gcpo_mcore.base.registry import rewards
from gcpo_mcore.rewarding.answer import Reward


class PartConfig(Config):
    """One reward in the sum.

    weight    its factor; 0 records the part without rewarding it
    gate      another part's name: this part counts only where that one scored at least `accuracy_threshold`
    settings  the reward's own knobs, checked against its class
    """

    weight: FiniteFloat
    gate: str | None
    settings: dict[str, Any]


class ClipConfig(Config):
    """The sum of the parts is moved into [lowest, highest]."""

    lowest: FiniteFloat
    highest: FiniteFloat

    @model_validator(mode="after")
    def _in_order(self) -> "ClipConfig":
        if self.lowest > self.highest:
            raise UserError(f"reward.clip: lowest {self.lowest:g} is above highest {self.highest:g}")
        return self


class RewardConfig(Config):
    """reward = sum of weight * score over the parts, clipped.

    parts               by the reward's name (a file in rewards/, or an entry point)
    accuracy            the part that decides `is_accurate`
    accuracy_threshold  the score from which on it is accurate (and from which on a gate opens)
    clip                bounds of the sum, or null; `failed_score` is not clipped
    workers             grading processes per rank
    deadline_s          seconds of CPU time that one response may take, all parts together: the same on a busy machine
    wall_deadline_s     seconds on the clock, for a response that waits for something and computes nothing
    memory_limit_mib    address space of a worker
    network             what workers have of it: 'auto' none where the platform can take it away, unless a part needs
                        it; 'deny' none, or they do not start; 'allow' all
    environment         names of variables that they get beside a few that Python needs (rewarding/confinement.py)
    max_failed_rounds   rounds of sampling in a row of which no response could be graded, before the run stops; 0: never
    failed_score        reward of a response whose grading timed out, crashed or raised
    max_response_chars  rewards see only that many last characters of a response

    UserError for an unknown reward, gate or accuracy, for wrong settings, and for a deadline that is shorter than what
    the parts may take by their own settings.
    """

    parts: dict[str, PartConfig] = Field(min_length=1)
    accuracy: str
    accuracy_threshold: FiniteFloat
    clip: ClipConfig | None
    workers: Free[PositiveInt]
    deadline_s: PositiveFloat  # not free: it decides which slow answers get `failed_score`
    wall_deadline_s: Free[PositiveFloat]
    network: Free[Literal["auto", "deny", "allow"]]
    environment: Free[tuple[str, ...]]
    max_failed_rounds: Free[NonNegativeInt]
    memory_limit_mib: Free[PositiveInt]
    failed_score: FiniteFloat
    max_response_chars: PositiveInt

    @model_validator(mode="after")
    def _names_fit(self) -> "RewardConfig":
        self._known_part("reward.accuracy", self.accuracy)
        for name, part in self.parts.items():
            if part.gate is not None:
                self._known_part(f"reward.parts.{name}.gate", part.gate)
                if part.gate == name:
                    raise UserError(f"reward.parts.{name}.gate: a part cannot be its own gate")
        needed_s = sum(getattr(reward, "worst_case_s", 0.0) for reward in self.build().values())
        if needed_s >= self.wall_deadline_s:
            raise UserError(
                f"reward.wall_deadline_s={self.wall_deadline_s:g}: by their settings the parts may take {needed_s:g} s"
            )
        return self

    @property
    def parts_with_network(self) -> list[str]:
        """The parts that say that they need the network."""
        return [name for name, reward in self.build().items() if getattr(reward, "needs_network", False)]

    @property
    def needs_network(self) -> bool:
        """Whether one does."""
        return bool(self.parts_with_network)

    def free_keys(self) -> Iterator[str]:
        """See `Config`; with those that the parts' own classes mark."""
        yield from super().free_keys()
        for name, reward in self.build().items():
            if isinstance(reward, Config):
                yield from (f"parts.{name}.settings.{key}" for key in reward.free_keys())

    def secret_keys(self) -> Iterator[str]:
        """See `Config`; with those that the parts' own classes mark."""
        yield from super().secret_keys()
        for name, reward in self.build().items():
            if isinstance(reward, Config):
                yield from (f"parts.{name}.settings.{key}" for key in reward.secret_keys())

    def build(self) -> dict[str, Reward]:
        """The callable rewards by part name. UserError says which setting is wrong."""
        return {name: _build(name, part.settings) for name, part in self.parts.items()}

    def _known_part(self, key: str, name: str) -> None:
        if name not in self.parts:
            raise UserError(f"{key}: no part '{name}'{nearest(name, self.parts)}; parts: {', '.join(self.parts)}")


def _build(name: str, settings: dict[str, Any]) -> Reward:
    reward_class = rewards.get(name)
    where = f"reward.parts.{name}.settings"
    if inspect.isfunction(reward_class):
        if settings:
            raise UserError(f"{where}: {name} is a function and has no settings")
        return reward_class
    try:
        return reward_class.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(place) for place in problem["loc"])
        unknown = problem["type"] == "extra_forbidden"
        hint = nearest(str(problem["loc"][-1]), reward_class.model_fields) if unknown else ""
        raise UserError(f"{where}.{key}: {problem['msg']}{hint}") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error

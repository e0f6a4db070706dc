"""The training stages of a run: those of `stages` in their order, then the run's own algorithm to the last step."""

import logging
from collections.abc import Mapping
from typing import Any

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.run.config import RunConfig, StageConfig

log = logging.getLogger(__name__)


class Stages:
    """Where a run stands in its stages: in number `number` (from 0), which began after step `begun_after`.

    The same on every rank; the one that `speaks` logs.
    """

    def __init__(self, config: RunConfig, speaks: bool):
        self._whole, self._speaks = config, speaks
        self._before: list[tuple[str, StageConfig]] = list(config.stages.items())
        self.number, self.begun_after = 0, 0
        self._was_measured = False

    @property
    def _stage(self) -> StageConfig | None:
        """The present one; None in the last, which is the run's own algorithm."""
        return self._before[self.number][1] if self.number < len(self._before) else None

    @property
    def is_last(self) -> bool:
        """Whether no other stage comes."""
        return self._stage is None

    @property
    def config(self) -> RunConfig:
        """The run's configuration as it is in the present stage."""
        return self._whole if self._stage is None else self._whole.in_stage(self._stage)

    @property
    def only_golden_rows(self) -> bool:
        """Whether prompts without a golden answer are not drawn in the present stage."""
        return self._stage is not None and self._stage.only_golden_rows

    @property
    def last_step(self) -> int:
        """The step with which the present stage ends, if no condition ends it earlier."""
        steps = self._whole.trainer.steps
        return steps if self._stage is None else min(self.begun_after + self._stage.steps, steps)

    def metrics(self) -> dict[str, float]:
        """The number of the present stage, from 1, in a run that has several."""
        return {"stage/number": self.number + 1.0} if self._before else {}

    def updates_done(self, step: int, number: int) -> tuple[int, int]:
        """(updates of this stage before update `number` of `step`, updates of the whole stage)."""
        of_step = self._whole.trainer.updates_per_step
        return (step - 1 - self.begun_after) * of_step + number, (self.last_step - self.begun_after) * of_step

    def end(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Goes on to the next stage if the present one ends with `step`, which has these metrics; whether it did."""
        stage = self._stage
        if stage is None:
            return False
        name, until = self._before[self.number][0], stage.until
        self._was_measured |= until is not None and until.metric in metrics
        is_met = until is not None and until.holds(metrics)
        if not is_met and step < self.last_step:
            return False
        why = f"{until.metric} is {metrics[until.metric]:.3f}" if until and is_met else "all its steps are done"
        if self._speaks:
            log.info("stage %s ended with step %d: %s", name, step, why)
        if self._speaks and until and not self._was_measured:
            log.warning("stage %s: no step had the metric %s (stages.%s.until)", name, until.metric, name)
        self._go_to(self.number + 1, step)
        return True

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"number": self.number, "begun_after": self.begun_after, "was_measured": self._was_measured}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Goes to where `state` was taken; None, of a checkpoint from before there were stages: to the only one.

        UserError if the checkpoint is of a stage that this run does not have.
        """
        state = state or {"number": 0, "begun_after": 0, "was_measured": False}
        if state["number"] > len(self._before):
            raise UserError(f"the checkpoint is of training stage {state['number']}, this run has {len(self._before)}")
        self._go_to(state["number"], state["begun_after"])
        self._was_measured = state["was_measured"]

    def _go_to(self, number: int, begun_after: int) -> None:
        self.number, self.begun_after, self._was_measured = number, begun_after, False

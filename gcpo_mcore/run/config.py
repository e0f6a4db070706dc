"""The whole configuration, typed. Values come from configs/*.yaml and the command line (gcpo_mcore/run/load.py)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from gcpo_mcore.actor.config import ActorConfig, ModelConfig, OptimizerConfig, ParallelConfig, RateConfig
from gcpo_mcore.base.config import Config, Free
from gcpo_mcore.base.errors import UserError, nearest
from gcpo_mcore.base.registry import algorithms, engines
from gcpo_mcore.data.config import DataConfig
from gcpo_mcore.evaluation.config import Benchmark, EvaluationConfig
from gcpo_mcore.monitor.config import MonitorConfig
from gcpo_mcore.objective import Algorithm
from gcpo_mcore.rewarding.config import RewardConfig
from gcpo_mcore.rollout.config import RolloutConfig
from gcpo_mcore.run.name import MAX_BYTES, check_name, check_run_name
from gcpo_mcore.run.rules import correct_older_weights

CONDITIONS = ("golden", "groups", "reward", "val")  # the kinds of metrics that may end a training stage


class RunSection(Config):
    """The run folder is `folder`/`name`. resume: 'auto' goes on from its newest good checkpoint; 'never' refuses
    a folder that has one. resume_step: it goes back to the checkpoint of that step instead; null: the newest.
    changed_inputs: whether it may go on with other data or another starter than before: 'refuse', or 'allow'."""

    name: Annotated[str, AfterValidator(check_run_name)]
    folder: str
    resume: Literal["auto", "never"]
    resume_step: PositiveInt | None
    changed_inputs: Literal["refuse", "allow"]


class TrainerConfig(Config):
    """Sizes of the loop, each in the unit that its name says.

    A step samples `prompts_per_step` x `samples_per_prompt` responses and trains on them in
    `updates_per_step` optimizer updates. `stop_at_step` ends this launch there, with a checkpoint; schedules still run
    over `steps`.
    """

    steps: Free[PositiveInt]
    stop_at_step: Free[PositiveInt | None]
    prompts_per_step: PositiveInt
    samples_per_prompt: PositiveInt
    updates_per_step: PositiveInt
    old_logp: Literal["auto", "score", "rollout"]  # whose log-probs an update is compared with
    sequences_per_microbatch: Free[PositiveInt]
    tokens_per_microbatch: Free[PositiveInt | None]  # packs of so many tokens in place of padded sequences
    share_prompts: Free[Literal["auto"] | bool]  # rows of a group behind one copy of their prompt
    checkpoint_every_steps: Free[NonNegativeInt]  # 0: only at the end
    checkpoint_every_s: Free[PositiveFloat | None]  # and where so many seconds have passed since the last one
    async_checkpoints: Free[bool]  # written while training goes on
    keep_checkpoints: Free[PositiveInt]  # the newest so many
    keep_every_steps: Free[NonNegativeInt | None]  # and those of every so many steps for good; 0, null: none
    hf_every_steps: Free[NonNegativeInt]  # Hugging Face exports in the background; 0: only at the end
    gate_exports: Free[bool]  # compare each export with what transformers loads from it


class DebugConfig(Config):
    """Looking into a run (docs/debugging.md).

    dump          the batches of these steps are written to debug/ of the run folder
    replay        such a file (its json): its step's updates are made again and compared; the run stays as it is
    rollout_only  the next steps are sampled and graded into debug/, and nothing is trained
    profile       of these steps torch's profiler writes a trace
    """

    dump: list[PositiveInt]
    replay: str | None
    rollout_only: bool
    profile: list[PositiveInt]


def _build_algorithm(value: Any) -> Any:
    """Of the class that is registered under the algorithm's name, if there is one."""
    if not isinstance(value, dict):
        return value
    return (algorithms.find(str(value.get("name"))) or Algorithm).model_validate(value)


def _build_rollout(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    try:
        engine = engines.get(str(value.get("engine")))
    except UserError as error:
        raise UserError(f"rollout.engine={value.get('engine')}: {error}") from None
    return engine.Config.model_validate(value)


class Until(Config):
    """A condition: the metric of a step is `at_least` that much. One that is not measured in a step is not."""

    metric: str
    at_least: float

    @field_validator("metric")
    @classmethod
    def _is_one_of_ours(cls, metric: str) -> str:
        if metric.partition("/")[0] not in CONDITIONS or "/" not in metric:
            raise ValueError(f"a condition is on a metric of {', '.join(f'{name}/' for name in CONDITIONS)}")
        return metric

    def holds(self, metrics: Mapping[str, float]) -> bool:
        """Whether a step with these metrics meets it."""
        return self.metric in metrics and metrics[self.metric] >= self.at_least


class StageConfig(Config):
    """A training stage before the run's own algorithm: at most `steps` steps, fewer if `until` is met (null: never).

    only_golden_rows  prompts without a golden answer are not drawn
    optimizer         its learning rate, a schedule over its own updates; Adam's moments pass from stage to stage
    """

    steps: PositiveInt
    until: Until | None
    only_golden_rows: bool
    algorithm: Annotated[Algorithm, BeforeValidator(_build_algorithm)]
    optimizer: RateConfig


class RunConfig(Config):
    """Everything that a run is made from. `prepared` is the folder that tools/prepare.py wrote."""

    seed: NonNegativeInt
    prepared: Free[str]  # by itself nothing: the paths made from it are compared
    run: Free[RunSection]
    trainer: TrainerConfig
    model: ModelConfig
    data: DataConfig
    algorithm: Annotated[Algorithm, BeforeValidator(_build_algorithm)]
    reward: RewardConfig
    rollout: Annotated[RolloutConfig, BeforeValidator(_build_rollout)]
    evaluation: Free[EvaluationConfig]
    actor: ActorConfig
    parallel: Free[ParallelConfig]  # a checkpoint loads at any layout (tests/actor/test_checkpoint.py)
    optimizer: OptimizerConfig
    monitor: Free[MonitorConfig]
    debug: Free[DebugConfig]
    benchmark: Free[dict[str, Benchmark]]
    stages: dict[str, StageConfig]

    @field_validator("benchmark")
    @classmethod
    def _are_names_of_files(cls, benchmarks: dict[str, Benchmark]) -> dict[str, Benchmark]:
        for name in benchmarks:
            check_name(name, "benchmark", "a file of its answers", MAX_BYTES - len(".jsonl"))
        return benchmarks

    @model_validator(mode="before")
    @classmethod
    def _apply_rules(cls, plain: Any) -> Any:
        return correct_older_weights(plain) if isinstance(plain, dict) else plain

    @model_validator(mode="after")
    def _refuse_two_debugs(self):
        if self.debug.replay and self.debug.rollout_only:
            raise UserError("debug.replay trains without sampling, debug.rollout_only samples without training: one")
        return self

    @model_validator(mode="after")
    def _refuse_contradictions(self):
        trainer = self.trainer
        self._refuse_algorithm()
        for name, stage in self.stages.items():
            try:
                self.in_stage(stage)._refuse_algorithm()
            except UserError as error:
                raise UserError(f"stages.{name}: {error}") from None
            self._refuse_condition(name, stage.until)
        before = sum(stage.steps for stage in self.stages.values())
        if before >= trainer.steps:
            raise UserError(
                f"the stages before algorithm={self.algorithm.name} take {before} steps, but trainer.steps="
                f"{trainer.steps} counts all of the run: none would be left for it"
            )
        every = trainer.checkpoint_every_steps
        if trainer.hf_every_steps and (not every or trainer.hf_every_steps % every):
            raise UserError(
                f"trainer.hf_every_steps={trainer.hf_every_steps} is no multiple of "
                f"trainer.checkpoint_every_steps={every}: an export is made from a checkpoint"
            )
        if trainer.keep_every_steps and (not every or trainer.keep_every_steps % every):
            raise UserError(
                f"trainer.keep_every_steps={trainer.keep_every_steps} is no multiple of "
                f"trainer.checkpoint_every_steps={every}: there would be no checkpoint to keep"
            )
        if trainer.prompts_per_step % trainer.updates_per_step:
            raise UserError(
                f"trainer.updates_per_step={trainer.updates_per_step} does not divide "
                f"trainer.prompts_per_step={trainer.prompts_per_step}"
            )
        if self.rollout.sends_adapter and not self.model.lora:
            raise UserError("rollout.adapter_folder sends an adapter: model/adapter=none has none")
        return self

    def _refuse_algorithm(self) -> None:
        """UserError if the algorithm does not fit to the run."""
        trainer, algorithm, sampled = self.trainer, self.algorithm, self.samples_per_prompt > 0
        if sampled and self.samples_per_prompt == 1 and algorithm.compares_samples:
            raise UserError(
                f"trainer.samples_per_prompt=1 with algorithm.advantage={algorithm.advantage.name} and "
                f"algorithm.surrogate={algorithm.surrogate.name}: a group of one has no contrast; use 2 or more"
            )
        if not sampled and (algorithm.compares_samples or not algorithm.filter.keeps_uniform):
            raise UserError(
                f"algorithm.golden={algorithm.golden.name} makes groups of one, which have no contrast: it needs "
                "algorithm/advantage=none, algorithm/filter=keep and a surrogate that compares no samples"
            )
        if trainer.old_logp == "rollout" and algorithm.mismatch.name != "off":
            raise UserError(
                f"trainer.old_logp=rollout takes the engine's log-probs for the actor's, so "
                f"algorithm.mismatch={algorithm.mismatch.name} would find no difference: algorithm/mismatch=off"
            )
        if algorithm.guide.needs_golden and (self.rollout.max_staleness or self.rollout.oversampling > 1):
            raise UserError(
                f"algorithm.guide={algorithm.guide.name} samples again within a step, when nothing else is under way: "
                "it needs rollout.max_staleness=0 and rollout.oversampling=1"
            )
        if sampled and self.rollout.sampling.temperature == 0:
            raise UserError(
                "rollout.sampling.temperature=0: greedy samples of a prompt are all the same; training needs > 0"
            )

    def _refuse_condition(self, name: str, until: Until | None) -> None:
        """UserError if the condition at which a stage ends can never be met."""
        if until is None or not until.metric.startswith("val/"):
            return
        k = self.evaluation.samples_per_prompt
        known = [f"val/{source}/avg@{k}" for source in self.data.eval] if self.evaluation.every_steps else []
        if until.metric not in known:
            raise UserError(
                f"stages.{name}.until.metric={until.metric} is not measured{nearest(until.metric, known)}: "
                f"{', '.join(known) or 'evaluation.every_steps=0'}"
            )

    def in_stage(self, stage: StageConfig) -> Self:
        """The configuration as it is in a stage before the last: with the stage's algorithm and learning rate."""
        optimizer = self.optimizer.model_copy(update=dict(stage.optimizer))
        return self.model_copy(update={"algorithm": stage.algorithm, "optimizer": optimizer})

    @property
    def algorithms(self) -> list[Algorithm]:
        """Those of all stages, the run's own last."""
        return [*(stage.algorithm for stage in self.stages.values()), self.algorithm]

    @property
    def samples_per_prompt(self) -> int:
        """Responses sampled for each prompt: 0 if the algorithm trains on golden answers only."""
        return self.algorithm.golden.rollouts_per_prompt(self.trainer.samples_per_prompt)

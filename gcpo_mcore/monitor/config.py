"""What a run writes down, and how long a phase may take."""

from pydantic import NonNegativeInt, PositiveFloat

from gcpo_mcore.base.config import Config


class MonitorConfig(Config):
    """progress          a progress bar, or one line per step where there is no terminal
    tensorboard       tensorboard events in tb/
    records           rollouts/step_NNNNNN.jsonl, one readable line per sample
    records_per_step  at most so many samples of a step; null for all
    phase_deadline_s  seconds that one phase of a step may take before the run ends (`watchdog`)
    stop_deadline_s   seconds from SIGTERM or SIGINT to the end, the step under way and its checkpoint included
    export_deadline_s seconds that a Hugging Face export may take
    """

    progress: bool
    tensorboard: bool
    records: bool
    records_per_step: NonNegativeInt | None
    phase_deadline_s: PositiveFloat
    stop_deadline_s: PositiveFloat
    export_deadline_s: PositiveFloat

"""What a run writes down, and how long a phase may take."""

from typing import Annotated

from pydantic import AfterValidator, NonNegativeInt, PositiveFloat

from gcpo_mcore.base.config import Config
from gcpo_mcore.base.registry import trackers


def _known(name: str) -> str:
    trackers.check(name)
    return name


class MonitorConfig(Config):
    """progress          a progress bar, or one line per step where there is no terminal
    trackers          programs that are told the metrics besides (monitor/trackers)
    tracker_project   the project of theirs that the run belongs to
    trackers_offline  they ask no network; what they keep is in trackers/ of the run folder
    records           rollouts/step_NNNNNN.jsonl, one readable line per sample
    records_per_step  at most so many samples of a step; null for all
    token_values_per_step  of these, so many with the log-probs and entropy of each token; null for all
    phase_deadline_s  seconds that one phase of a step may take before the run ends (`watchdog`)
    stop_deadline_s   seconds from SIGTERM or SIGINT to the end, the step under way and its checkpoint included
    export_deadline_s seconds that a Hugging Face export may take
    """

    progress: bool
    trackers: list[Annotated[str, AfterValidator(_known)]]
    tracker_project: str
    trackers_offline: bool
    records: bool
    records_per_step: NonNegativeInt | None
    token_values_per_step: NonNegativeInt | None
    phase_deadline_s: PositiveFloat
    stop_deadline_s: PositiveFloat
    export_deadline_s: PositiveFloat

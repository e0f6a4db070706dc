"""What the pool and a worker have to agree on beside their messages."""

import signal
from typing import Literal, NamedTuple

from gcpo_mcore.rewarding.config import RewardConfig

OUT_OF_MEMORY = 12  # a worker's exit code
OUT_OF_TIME = signal.SIGPROF  # by which the kernel ends it when an answer has had its CPU time


class Orders(NamedTuple):
    """What a worker is told first. word: what its lines begin with; network: whether it leaves it, and works all the
    same where it cannot."""

    word: str
    config: RewardConfig
    network: Literal["keep", "leave", "must leave"]

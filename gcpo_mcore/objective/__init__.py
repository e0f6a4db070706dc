"""The independent parts that algorithms are made of, and their composition."""

from gcpo_mcore.objective import beside, contrast  # noqa: F401 their options register themselves
from gcpo_mcore.objective.algorithm import Algorithm

__all__ = ["Algorithm"]

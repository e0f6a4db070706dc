"""The independent parts that algorithms are made of, and their composition."""

from gcpo_mcore.objective import contrast  # noqa: F401 its surrogates register themselves
from gcpo_mcore.objective.algorithm import Algorithm

__all__ = ["Algorithm"]

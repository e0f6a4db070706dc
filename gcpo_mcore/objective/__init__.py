"""The independent parts that algorithms are made of, and their composition."""

from gcpo_mcore.objective.algorithm import Algorithm

__all__ = ["Algorithm"]

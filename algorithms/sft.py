"""Supervised training on the golden answers: the degenerate case of the same parts.

    J = 1/(sum_i |o_i|) sum_i sum_t log pi(o_it)        over golden answers o_i; nothing is sampled

The control line of every comparison with golden injection, and what makes a starter model.
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class SFT(Algorithm):
    """Golden answers only, advantage 1, plain log-likelihood."""

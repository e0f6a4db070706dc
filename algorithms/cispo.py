"""CISPO, Clipped Importance-Sampling weight Policy Optimization (MiniMax-M1, arXiv 2506.13585, eq. 4 and 5).

J = 1/(sum_i |o_i|) sum_i sum_t sg( min(w_it, cap) ) A_i log pi(o_it)
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class CISPO(Algorithm):
    """The ratio is capped and carries no gradient, so no token loses its own."""

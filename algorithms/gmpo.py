"""GMPO, Geometric-Mean Policy Optimization (arXiv 2507.20673, eq. 4).

J = 1/G sum_i A_i exp( 1/|o_i| sum_t l_it )
l_it = min(log w_it, c) where A_i > 0, max(log w_it, -c) where A_i < 0
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class GMPO(Algorithm):
    """Geometric mean of clipped token ratios."""

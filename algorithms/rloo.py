"""RLOO, REINFORCE leave-one-out (arXiv 2402.14740, sec. 3).

J = 1/G sum_i A_i log pi(o_i),   A_i = R_i - mean_{j != i} R_j,   R_i = r_i - beta sum_t (log pi_old - log pi_ref)(o_it)
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class RLOO(Algorithm):
    """Leave-one-out baseline, no ratio, KL k1 in the reward."""

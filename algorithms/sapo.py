"""SAPO, Soft Adaptive Policy Optimization (arXiv 2511.20347).

J = 1/G sum_i 1/|o_i| sum_t f(w_it) A_i,   f(w) = 4/tau sigmoid(tau (w - 1)),   tau by the sign of A_i
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class SAPO(Algorithm):
    """A soft gate on the token ratio in place of the clip."""

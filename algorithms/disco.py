"""DisCO, Discriminative Constrained Optimization (arXiv 2505.12366, log-likelihood score).

L = mean over groups of { tau log mean_{j in N} exp(s_j / tau) - mean_{i in P} s_i } + beta/2 max(0, KL - delta)^2
s_i = 1/|o_i| sum_t log pi(o_it),   KL = mean over sampled tokens of log pi_old - log pi
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class DisCO(Algorithm):
    """Right samples up, the hardest wrong ones down, within a trust region."""

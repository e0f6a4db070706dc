"""LUFFY, Learning to reason Under oFF-policY guidance (arXiv 2504.14945, eq. 6).

J = 1/(G L) { sum_sampled i sum_t w_it A_i + sum_t f(pi(g_t)) A_g },   f(p) = p / (p + 0.1),   A_i = r_i - mean_j r_j
with one golden trace g in every group, A over the mixed group, L a constant length; entropy bonus.
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class LUFFY(Algorithm):
    """A golden trace in every group, with a ratio that lifts unlikely tokens."""

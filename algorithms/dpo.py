"""DPO, Direct Preference Optimization (arXiv 2305.18290, eq. 7), on pairs of a right and a wrong sample of one group.

L = mean over groups of the mean over pairs (i, j) of -log sigmoid( beta (d_i - d_j) )
d_i = log pi(o_i) - log pi_ref(o_i),   i verified right, j verified wrong
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class DPO(Algorithm):
    """Verified pairs of the same group in place of human preferences."""

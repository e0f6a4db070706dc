"""GSPO, Group Sequence Policy Optimization (arXiv 2507.18071, eq. 5 and 7).

J = 1/G sum_i min( s_i A_i, clip(s_i, 1-e_low, 1+e_high) A_i ),   s_i = ( pi(o_i) / pi_old(o_i) )^(1/|o_i|)
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class GSPO(Algorithm):
    """One ratio per sequence, group advantage with standard deviation, no KL."""

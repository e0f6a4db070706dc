"""REINFORCE++ (arXiv 2501.03262).

J = 1/(sum_i |o_i|) sum_i sum_t min( w_it A_it, clip(w_it, 1-e, 1+e) A_it )
A_it = (a_it - mean a) / std a over all tokens of the batch
a_it = r_i - beta sum_{u >= t} (log pi_old - log pi_ref)(o_iu)
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class ReinforcePP(Algorithm):
    """No group: returns of each token, whitened over the batch."""

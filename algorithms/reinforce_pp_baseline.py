"""REINFORCE++-baseline (arXiv 2501.03262).

J = 1/(sum_i |o_i|) sum_i sum_t { min( w_it A_i, clip(w_it, 1-e, 1+e) A_i ) - beta k2_it }
A_i = (a_i - mean a) / std a over all tokens of the batch,   a_i = r_i - mean_j r_j over the group
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class ReinforcePPBaseline(Algorithm):
    """Group mean first, then whitened over the batch; KL k2 in the loss."""

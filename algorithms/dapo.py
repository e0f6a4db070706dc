"""DAPO, Decoupled Clip and Dynamic sAmpling Policy Optimization (arXiv 2503.14476, eq. 8-12).

J = 1/(sum_i |o_i|) sum_i sum_t min( w_it A_i, clip(w_it, 1-e_low, 1+e_high) A_i )
over groups that are neither all right nor all wrong (sampled again until the batch is full); no KL.
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class DAPO(Algorithm):
    """GRPO with a higher upper clip, token mean, uniform groups dropped and refilled, no KL."""

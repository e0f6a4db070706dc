"""SRPO, two-Staged history-Resampling Policy Optimization (arXiv 2504.14286).

J = 1/(sum_i |o_i|) sum_i sum_t min( w_it A_i, clip(w_it, 1-e, 1+e) A_i )
over prompts that were not all right when they were sampled last
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class SRPO(Algorithm):
    """GRPO with a token mean, no KL, and solved prompts left out of later epochs."""

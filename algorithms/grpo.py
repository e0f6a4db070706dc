"""GRPO, Group Relative Policy Optimization (DeepSeekMath, arXiv 2402.03300, eq. 3).

J = 1/G sum_i 1/|o_i| sum_t { min( w_it A_i, clip(w_it, 1-e, 1+e) A_i ) - beta k3_it }
w_it = pi(o_it) / pi_old(o_it),   A_i = (r_i - mean_j r_j) / (std_j r_j + 1e-6)
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class GRPO(Algorithm):
    """Token ratios, group advantage with standard deviation, sequence mean of token means, KL k3 in the loss."""

"""Dr.GRPO, "GRPO done right" (arXiv 2503.20783, sec. 3.2).

J = 1/(G L) sum_i sum_t min( w_it A_i, clip(w_it, 1-e, 1+e) A_i ),   A_i = r_i - mean_j r_j,   L a constant length
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class DrGRPO(Algorithm):
    """GRPO without its two divisions: by the standard deviation and by the response's length."""

"""ConSPO, "Revisiting RLVR from a Contrastive Perspective" (arXiv 2605.12969).

L = mean over groups of 1/|P| sum_{i in P} log( 1 + sum_{j in N} exp( (s_j - s_i + m) / tau ) )
s_i = 1/|o_i| sum_t log pi(o_it),   P the right and N the wrong samples of the group, m growing over the run
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class ConSPO(Algorithm):
    """InfoNCE on length-normalised log-probs; no ratio, no advantage."""

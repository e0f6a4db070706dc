"""GCPO, Group Contrastive Policy Optimization ("When Contrast Fails, Go Gold", arXiv 2510.07790).

If every sample of a prompt is wrong, one of them is replaced by the golden answer; then

    J = 1/G sum_i min( s_i A_i, clip(s_i, 1-e_low, 1+e_high) A_i )          no KL
    s_i = ( pi(o_i) / pi_old(o_i) )^(1/|o_i|),   A_i = (r_i - mean_j r_j) / (std_j r_j + 1e-6)

with A computed after the replacement. Sourced: the trigger, that one sample is replaced, the sequence-level
ratio, no KL. Our reading, because the paper's method section was not reachable: the length normalisation, the
clip range (GSPO's), the slot, and the golden answer's old log-prob (teacher-forced through the actor).
In an all-wrong group of G the golden row has A = (G-1)/sqrt(G), the others -1/sqrt(G) (sample std).
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class GCPO(Algorithm):
    """Golden answer into all-wrong groups, sequence ratio, group advantage, no KL."""

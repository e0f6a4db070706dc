"""RLOO, REINFORCE leave-one-out (arXiv 2402.14740, sec. 3).

    J = 1/G sum_i A_i log pi(o_i),   A_i = R_i - mean_{j != i} R_j,   R_i = r_i - beta sum_t log(pi_old / pi_ref)(o_it)

Sourced: the leave-one-out baseline, the KL in the reward.
Our reading: beta 0.03, as in public code. There is no ratio, so it is exact with one update a step only.
"""

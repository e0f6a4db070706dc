"""LUFFY, Learning to reason Under oFF-policY guidance (arXiv 2504.14945, eq. 6, and its public script).

    J = 1/(G L) { sum over sampled i of sum_t w_it A_i + sum_t f(pi(g_t)) A_g },   f(p) = p / (p + 0.1)
    A_i = r_i - mean_j r_j over the group with the trace g in it,   L a constant length

Sourced: one golden trace in every group, the shaped ratio, no clip, no standard deviation, a constant length, entropy
bonus 0.001, no KL.
Our reading: the trace takes the place of a random sample.
"""

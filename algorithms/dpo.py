"""DPO, Direct Preference Optimization (arXiv 2305.18290, eq. 7), on line.

    L = mean over groups and their pairs (i right, j wrong) of -log sigmoid( beta (d_i - d_j) )
    d_i = log pi(o_i) - log pi_ref(o_i)

Our reading: the pairs are all verified right and wrong samples of the same group; beta 0.1; the mean over a group's
pairs, then over groups.
"""

"""GMPO, Geometric-Mean Policy Optimization (arXiv 2507.20673, eq. 4).

    J = 1/G sum_i A_i exp( 1/|o_i| sum_t l_it )
    l_it = min(log w_it, c) where A_i > 0, max(log w_it, -c) where A_i < 0

Sourced: the geometric mean, the clip of each token before it, c = 0.4.
"""

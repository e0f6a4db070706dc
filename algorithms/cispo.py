"""CISPO, Clipped Importance-Sampling weight Policy Optimization (MiniMax-M1, arXiv 2506.13585, eq. 4 and 5).

    J = 1/(sum_i |o_i|) sum_i sum_t sg( min(w_it, cap) ) A_i log pi(o_it)

Sourced: the capped ratio without gradient, so that no token loses its own; no lower bound in practice, no KL.
Our reading: `cap` is the ratio itself (public codes mean three different things by their epsilon); 5.0 is ScaleRL's.
"""

"""DisCO, Discriminative Constrained Optimization (arXiv 2505.12366, log-likelihood score, and its public script).

    L = mean over groups of { tau log mean_{j in N} exp(s_j / tau) - mean_{i in P} s_i } + beta/2 max(0, KL - delta)^2
    s_i = 1/|o_i| sum_t log pi(o_it);   P the right, N the wrong samples

Sourced: tau 10, delta 1e-4, beta 1e3, the trust region on the way from the old policy.
Our reading: the mean is over groups that have both classes; its code divides by all. KL is the mean of
log pi_old - log pi over the sampled tokens of the update, golden rows left out.
"""

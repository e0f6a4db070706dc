"""GRPO, Group Relative Policy Optimization (DeepSeekMath, arXiv 2402.03300, eq. 3 and 4).

    J = 1/G sum_i 1/|o_i| sum_t { min( w_it A_i, clip(w_it, 1-e, 1+e) A_i ) - beta k3_it }
    k3_it = exp(-d) - 1 + d,   d = log pi(o_it) - log pi_ref(o_it)

Sourced: the surrogate, the sequence mean of token means, k3 in the loss, the group's standard deviation.
Our reading: e = 0.2 and a standard deviation with n-1, as in public code; beta = 0.001 after DeepSeek-R1 (the first
paper has 0.04).
"""

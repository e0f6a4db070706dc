"""Dr.GRPO, "GRPO done right" (arXiv 2503.20783, sec. 3.2).

    J = 1/(G L) sum_i sum_t min( w_it A_i, clip(w_it, 1-e, 1+e) A_i ),   A_i = r_i - mean_j r_j

Sourced: no division by the standard deviation, none by the response's length, no KL.
Our reading: L is `rollout.sampling.max_response_tokens`; the sum is divided by sequences x L (one public code divides
by L alone).
"""

"""SRPO, two-Staged history-Resampling Policy Optimization (arXiv 2504.14286).

    J = 1/(sum_i |o_i|) sum_i sum_t min( w_it A_i, clip(w_it, 1-e, 1+e) A_i )
    over prompts that were not all right when they were sampled last

Sourced: after an epoch, prompts whose samples were all right are left out, all-wrong and mixed ones stay; token mean;
no KL.
Our reading: a solved prompt stays out, clip 0.2. Its two stages (mathematics, then code) are data: two runs, the
second with `model.path` at the first one's export.
"""

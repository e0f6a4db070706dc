"""REINFORCE++-baseline: REINFORCE++ with a group baseline (arXiv 2501.03262).

    J = 1/(sum_i |o_i|) sum_i sum_t { min( w_it A_i, clip(w_it, 1-e, 1+e) A_i ) - beta k2_it }
    A_i = (a_i - mean a) / std a over all tokens of the step
    a_i = r_i - mean_j r_j over the group,   k2_it = (log(pi / pi_ref)(o_it))^2 / 2

Sourced: the group's mean first, then whitening over the batch; the KL in the loss.
Our reading: beta 0.001, mean over tokens.
"""

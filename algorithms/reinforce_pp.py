"""REINFORCE++ (arXiv 2501.03262).

    J = 1/(sum_i |o_i|) sum_i sum_t min( w_it A_it, clip(w_it, 1-e, 1+e) A_it )
    A_it = (a_it - mean a) / std a over all tokens of the step
    a_it = r_i - beta sum_{u >= t} log(pi_old / pi_ref)(o_iu)

Sourced: no group; returns per token with the KL (k1) in the reward, whitening over the batch, the PPO clip.
Our reading: beta 0.03 (RLOO's), mean over tokens.
"""

"""DAPO, Decoupled Clip and Dynamic sAmpling Policy Optimization (arXiv 2503.14476, eq. 8 to 12).

    J = 1/(sum_i |o_i|) sum_i sum_t min( w_it A_i, clip(w_it, 1-e_low, 1+e_high) A_i )
    over groups with contrast; sampled again until the step's batch is full

Sourced: e_low 0.2 and e_high 0.28, the mean over all tokens, dynamic sampling, no KL. Groups go by the number of right
answers (`by=accuracy`); `by=reward` keeps a wrong group whose rewards differ by a bonus.
Our reading: the denominator is the update's tokens; at most 10 rounds of sampling per step, then the step trains on
what it has (`at_cap=stop` ends the run instead).
Not in the preset: the soft overlong punishment, a reward (rewards/overlong.py); overlong filtering is
`algorithm.filter.mask_truncated=true`.
"""

"""DyME's golden answers (arXiv 2506.23061, and its public trainer) in GRPO without a KL.

    J = 1/G sum_i 1/|o_i| sum_t min( w_it A_i, clip(w_it, 1-e, 1+e) A_i )
    in an all-wrong group the first response is the golden answer, A = 1 for it and 0 for all others

So in such a group it is supervised training on the golden answer, scaled by 1/G: no wrong sample is pushed down.
Sourced: the trigger, the first response, both advantages.
Our reading: the surrogate and its mean are GRPO's, e = 0.2; the golden answer's old log-probs are the actor's own.
"""

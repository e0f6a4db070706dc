"""GCPO's objective on the samples, and golden answers supervised while sampling does not reach them. Ours: in no paper.

    L = -1/G sum_i min( s_i A_i, clip(s_i, 1-e_low, 1+e_high) A_i ) - 1/N sum_{g in U} sum_t log pi(g_t)

g are the golden answers of the step's prompts, beside their groups: A is of the samples alone. N are the tokens of all
g. U are those out of reach: g joins U when its worst token is below `reach_logp` (-3 nats) under the present weights,
and leaves it when that token is `reach_hysteresis` (1.5 nats) above. So an answer is imitated until sampling can find
it, prompt by prompt, with no number of supervised steps to guess; what is in U is in the checkpoint.

One forward pass over the golden answers of a step is what it costs. `reach_quantile` looks at another token than the
worst, `token_weight=unreachable` imitates only the tokens below the bound, `others=zero` leaves the samples of a prompt
out of the loss while its golden answer is imitated, `max_solved=0` imitates only where all samples failed.
"""

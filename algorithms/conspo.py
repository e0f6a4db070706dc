"""ConSPO, "Revisiting RLVR from a Contrastive Perspective" (arXiv 2605.12969).

    L = mean over groups of 1/|P| sum_{i in P} log( 1 + sum_{j in N} exp( (s_j - s_i + m) / tau ) )
    s_i = 1/|o_i| sum_t log pi(o_it);   P the right, N the wrong samples;   m grows from margin_start to margin_end

We could read its abstract and what others write of it. No ratio, no advantage, no KL.
Sourced: length-normalised log-probs as scores, InfoNCE of each right sample against the group's wrong ones, a margin
that grows.
Our reading: where margin and temperature stand; tau = 0.5 and margin 0 to 0.5 nats per token, linear over the run; the
mean is over groups that have both classes. Whether the other right samples stand in the denominator is told both ways:
`denominator=wrong`, the default, leaves them out, `all` has them in.
"""

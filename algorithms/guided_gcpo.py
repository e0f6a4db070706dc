"""GCPO; an all-wrong group is sampled again behind the first tokens of its golden answer. Ours: in no paper.

    J = 1/G sum_i min( s_i A_i, clip(s_i, 1-e_low, 1+e_high) A_i )
    all G samples of x wrong: o_i ~ pi_old(. | x, g[:n]) anew
    s_i = (pi(o_i | x, g[:n]) / pi_old(o_i | x, g[:n]))^(1/|o_i|)
    all wrong again: one o_i becomes g[n:], the rest of the golden answer

g is the golden answer, of which the prompt is given n tokens: a share that starts at 0.5 (`fraction`), falls by 0.1
(`change`) when some sample was right and rises by as much when none was. It is kept by prompt, in the checkpoint. The
given tokens are context and no part of the loss: the rows are those of x with their first n tokens masked, which are
the same log-probs, so there is nothing to correct for.
Sourced: shares that shrink with success (AdaBack, arXiv 2506.18110), guidance only for all-wrong groups (BREAD, arXiv
2506.17211; OC-GRPO, arXiv 2607.19313); the rest is GCPO (arXiv 2510.07790).
Our reading: the sizes of the steps, one round more in a step at most, and the rest of the golden answer where guidance
fails too. A token that sampling never makes is hidden by the prefix, and not learnt, while it is given.
"""

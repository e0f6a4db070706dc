"""GCPO, Group Contrastive Policy Optimization ("When Contrast Fails, Go Gold", arXiv 2510.07790).

If no response of a group is accurate, one of them is replaced by the golden answer: a verified reference solution.
Then, with A computed after the replacement:

    J = 1/G sum_i min( s_i A_i, clip(s_i, 1-e_low, 1+e_high) A_i )            no KL

In an all-wrong group the golden row gets A = (G-1)/sqrt(G) and each other row -1/sqrt(G) (2.47 and -0.35 for G = 8);
without it every A is 0 and the prompt teaches nothing. On the first update of a step s_i = 1, so the golden row's
gradient is supervised training on it, length-normalised and scaled by A/G.

We could read the paper's abstract and what its author and reviews say of it, not its method section.
Sourced: the trigger (all responses wrong), that one response is replaced, the sequence-level ratio, no KL.
Our reading: everything else. Which response is replaced (`slot`, random by default); the length normalisation and the
clip range 3e-4 / 4e-4, both GSPO's (arXiv 2507.18071); the group advantage with standard deviation; the mean over
sequences; all-right groups stay, with zero gradient; the golden answer's old log-prob, which is the actor's own by
teacher forcing. "All wrong" is decided on the accuracy flag, so a bonus for form does not hide it.
"""

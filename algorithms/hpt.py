"""HPT, Hybrid Post-Training (arXiv 2509.04419, and its public code).

    L = L_GRPO over prompts of which more than `max_solved` of the samples are right
      + L_SFT over the others,   L_SFT = -1/N sum over their golden answers g of sum_t log pi(g_t)

Sourced: the gate by the share of right samples (0: no sample is right), that a prompt's samples are then dropped for
its golden answer, coefficient 1 (0.3 for its small model: `weight`).
Our reading: dropped samples have advantage 0 and stay in the mean; N are the tokens of the golden answers that pass the
gate; GRPO without a KL, clip 0.2.
"""

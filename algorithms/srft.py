"""SRFT's supervised loss (arXiv 2506.19767) beside GRPO's. Not all of SRFT.

    L = L_GRPO - 0.5/N sum over golden answers g of sum_t sg( exp(-H_t) ) log pi(g_t)

H_t is the policy's entropy where g_t stands. Sourced: the weight 0.5 exp(-H) without gradient, always.
Our reading: H by token, N the tokens of the golden answers. Left out: SRFT's second use of the golden answers, as
off-policy rows of the group with behaviour probability 1 (that is `algorithm=luffy`), and its weight 0.1 exp(H) on
right samples. GRPO without a KL, clip 0.2.
"""

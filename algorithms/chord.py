"""CHORD (arXiv 2508.11408; the public codes in ms-swift and Trinity-RFT).

    L = (1 - mu) L_GRPO + mu L_SFT,   L_SFT = -1/N sum over golden answers g of sum_t phi_t log pi(g_t)
    phi_t = sg( p_t (1 - p_t) ),   p_t = pi(g_t);   mu falls from 0.9 to 0.05 as half a cosine

Sourced: the blend, phi without gradient, the fall as half a cosine from a peak to a valley.
Our reading: the peak and the valley are an example's; mu falls over the whole run or training stage, without a warm-up;
the golden answers are those of the step's own prompts, where CHORD draws a batch of their own from another data set;
N are their tokens. GRPO without a KL, clip 0.2.
"""

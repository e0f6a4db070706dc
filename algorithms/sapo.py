"""SAPO, Soft Adaptive Policy Optimization (arXiv 2511.20347).

    J = 1/G sum_i 1/|o_i| sum_t f(w_it) A_i,   f(w) = 4/tau sigmoid(tau (w - 1))
    tau = 1.0 where A > 0, 1.05 elsewhere

Sourced: the gate in place of the clip, and both constants; f'(1) = 1, so on policy it is GRPO without the KL.
"""

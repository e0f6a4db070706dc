"""Supervised training on the golden answers: the degenerate case of the same parts. It needs no source.

    J = 1/(sum_i |o_i|) sum_i sum_t r_i log pi(o_it)        over the golden answers o_i; nothing is sampled

r_i is the golden answer's own reward: 1 with the shipped rewards, so plain log-likelihood. A reward that gives golden
answers other values weighs them by it.
"""

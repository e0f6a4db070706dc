"""One file per algorithm, with what there is to say of it: equation, source, what is our reading of it.

What an algorithm is made of stands in configs/algorithm/NAME.yaml; that alone is an algorithm. A file here has a class
only where no part can say what is to be done: a subclass of gcpo_mcore.objective.Algorithm under
`@algorithms.register`, which is then the algorithm of that name (in another distribution: an entry point of that name
in the group `gcpo_mcore.algorithms`).

    w_it = pi(o_it) / pi_old(o_it)                            token ratio
    s_i  = ( prod_t w_it )^(1/|o_i|)                          sequence ratio
    A_i  = (r_i - mean_j r_j) / (std_j r_j + 1e-6)            group advantage, std with n-1

are those of docs/algorithms.md, with G the responses of a prompt, o_i the i-th, r_i its reward; J is maximised, L
minimised, sg[] has no gradient.
"""

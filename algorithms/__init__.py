"""One file per algorithm: its equation and source, and what it adds to the parts (often nothing).

An own algorithm is a class like these plus a yaml over the parts: a file here and one in
configs/algorithm/, or the same two in another package that registers the class under the entry-point group
`gcpo_mcore.algorithms` and its configs through Hydra's search path.
"""

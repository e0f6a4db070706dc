"""GSPO, Group Sequence Policy Optimization (arXiv 2507.18071, eq. 5 and 7).

    J = 1/G sum_i min( s_i A_i, clip(s_i, 1-e_low, 1+e_high) A_i )

Sourced: the sequence ratio, clip 3e-4 / 4e-4, no KL. The paper makes 4 updates of a rollout batch
(`trainer.updates_per_step=4`). GSPO-token (eq. 14) is `algorithm/importance=sequence_token`: the same value and
gradient unless the advantage differs by token.
"""

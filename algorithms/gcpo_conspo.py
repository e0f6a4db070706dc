"""GCPO's golden answers with ConSPO's loss. Ours: in no paper.

If every sample of a prompt is wrong, one of them is replaced by the golden answer; then ConSPO's loss (conspo.py),
in which the golden answer is the group's only right sample.
"""

from gcpo_mcore.base.registry import algorithms
from gcpo_mcore.objective import Algorithm


@algorithms.register
class GCPOConSPO(Algorithm):
    """Golden answer into all-wrong groups, then InfoNCE."""

"""GCPO's golden answers (gcpo.py), then ConSPO's loss (conspo.py). Ours: in no paper.

In an all-wrong group the golden answer is the only right sample; without it ConSPO skips the group.
"""

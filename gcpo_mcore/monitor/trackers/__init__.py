"""Where a run's numbers can go besides metrics.jsonl: one module for each, named as the config names it.

Another distribution adds one by an entry point in the group gcpo_mcore.trackers.
"""

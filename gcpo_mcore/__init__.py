"""gcpo_mcore: reinforcement learning with verifiable rewards on Megatron-Core.

Importing the package is free of side effects and does not import torch, so that the reward
workers (`gcpo_mcore.rewarding`) stay small and start fast.
"""

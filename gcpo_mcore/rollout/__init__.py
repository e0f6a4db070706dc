"""Rollout: engines behind one small interface, and the sampler that shares the work out over the ranks."""

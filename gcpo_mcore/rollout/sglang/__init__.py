"""SGLang servers as the rollout engine: processes, requests, faults, weights. engines/sglang.py puts them together."""

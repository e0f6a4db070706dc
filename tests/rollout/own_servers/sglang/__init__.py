"""In the place of SGLang for servers that a run of the tests starts itself: tests/rollout/fake_sglang.py."""

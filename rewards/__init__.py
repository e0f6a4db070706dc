"""The built-in rewards, one file each; the file's name is the reward's name.

To add one, write `rewards/NAME.py` with a small `Config` subclass that carries
`@rewards.register` and maps a list of `Answer` to a list of scores, then name it in a
`configs/reward/*.yaml`. Nothing is listed anywhere. `docs/rewards.md` shows one, and how another
distribution adds its own without a fork.

These files run inside short-lived worker processes: keep their imports light (never torch).
"""

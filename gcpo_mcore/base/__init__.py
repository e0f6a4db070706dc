"""The ground: what every other folder stands on. Imports nothing of ours."""

"""Grids of runs: what the cells are (grid), running them (runner), and what came out (runs, statistics, report)."""

"""Benchmarks: published problems, asked and graded by a stated protocol, with figures that have error bars."""

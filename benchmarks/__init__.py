"""Benchmarks: each prints a ratio against a named reference of the same run."""

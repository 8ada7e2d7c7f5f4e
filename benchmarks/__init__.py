"""Benchmarks of speed, memory and sensitivity, against a reference in the same run."""

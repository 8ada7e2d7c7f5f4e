"""Noise: curves, lines, drift, glitches, and recorded strain."""

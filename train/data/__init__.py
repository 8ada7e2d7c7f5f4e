"""Simulated strain: noise curves, noise, glitches, mergers, whitening."""

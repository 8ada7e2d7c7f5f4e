"""Simulated mergers: waveforms, populations, projection onto the detectors."""

"""Mergers: waveforms, populations, projection onto the detectors."""

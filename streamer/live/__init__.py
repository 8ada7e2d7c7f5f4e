"""Strain as it comes: a directory of frames to candidates, within a second."""

"""Strain as it comes: a directory of frames to candidates, in a second or two."""

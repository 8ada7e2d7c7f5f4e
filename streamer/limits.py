"""Largest requests for timeslides."""

MAX_LENGTH = 1024.0
"""Longest stretch, s; a server of two instances then stays below 2 GiB."""

MAX_SLIDE_LENGTH = 512 * MAX_LENGTH
"""Most that all slides of a request are long together, s; for the same reason."""

STRETCH_LENGTH = MAX_LENGTH
"""Longest stretch unless another is asked for, s."""

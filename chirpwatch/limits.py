"""Largest requests that plans are made for and models are built for."""

MAX_LENGTH = 1280.0
"""Longest stretch, s; a server of two instances then stays below 3 GiB."""

MAX_SLIDE_LENGTH = 524_288.0
"""Most that all slides of a request are long together, s; for the same reason."""

STRETCH_LENGTH = MAX_LENGTH
"""Longest stretch unless another is asked for, s."""

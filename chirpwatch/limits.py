"""Limits on the size of requests to the models, for which the memory is sized."""

MAX_LENGTH = 1280.0
"""Longest strain in a request, s.

A server with two instances of each model then needs less than 3 GiB.
"""

MAX_SLIDE_LENGTH = 524_288.0
"""Largest sum of the lengths of a request's timeslides, s, for the same reason."""

STRETCH_LENGTH = MAX_LENGTH
"""Default length of a stretch, s.

A stretch is gap-free strain, within which a timeslide shifts the detectors circularly.
"""

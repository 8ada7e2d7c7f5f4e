"""Default model configuration and models of the embedded server.

They are separate from ``embedded.py`` as commands show them in their help, which must
be fast.
"""

CONFIGURATION = "cpu"
"""Name of the configuration for CPUs, which serves ``detector`` as a single model."""

ENTRIES = ("detector", "timeslides")
"""Models that chirpwatch's own clients send requests to."""

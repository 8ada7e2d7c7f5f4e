"""Default configuration and models of a server."""

CONFIGURATION = "cpu"
"""Name of the models' configuration for CPUs, with the detector as one model."""

ENTRIES = ("detector", "timeslides")
"""The models that chirpwatch's own clients send requests to."""

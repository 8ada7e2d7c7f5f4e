"""What a server serves unless it is told otherwise."""

CONFIGURATION = "cpu"
"""The models' configuration that serves the detector as one model, for CPUs."""

ENTRIES = ("detector", "timeslides")
"""The models that chirpwatch's own clients ask."""

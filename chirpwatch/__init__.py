"""What every part of chirpwatch shares: geometry, time, strain, statistics."""

__version__ = "0.2.0"

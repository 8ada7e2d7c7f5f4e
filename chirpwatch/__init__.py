"""Online detection of compact binary mergers in gravitational-wave strain.

The modules here are shared by all parts: geometry, strain and signal files, statistics.
"""

__version__ = "0.2.0"

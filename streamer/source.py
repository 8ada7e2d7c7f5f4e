"""Where strain comes from: a name that every process can open for itself."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from chirpwatch.background_file import read_background
from chirpwatch.errors import StrainError
from chirpwatch.geometry import Geometry
from chirpwatch.gwosc_file import read_gwosc
from chirpwatch.strain import Segment

PROBES = 64
PROBE_SIZE = 256
"""A segment is known again by this many samples at so many places."""


@dataclass(frozen=True)
class Source:
    """Files of strain.

    Attributes:
        paths: One file of segments, or GWOSC's files, one for each detector.
        split: Which segments of the one file; None for GWOSC's.
    """

    paths: tuple[Path, ...]
    split: str | None

    @property
    def name(self) -> str:
        """What people call it."""
        return ", ".join(path.name for path in self.paths)

    def segments(self, geometry: Geometry) -> list[Segment]:
        """The segments, in order of time.

        Raises:
            StrainError: A file is missing or not of its kind; or no strain in it.
        """
        if self.split is not None:
            (path,) = self.paths
            return read_background(
                path, self.split, geometry.ifos, geometry.sample_rate
            )
        found = read_gwosc(self.paths, geometry.ifos, geometry.sample_rate)
        if not found:
            names = ", ".join(str(path) for path in self.paths)
            raise StrainError(f"{names}: no time at which every detector has data")
        return found


@lru_cache(maxsize=1)
def open_once(source: Source, geometry: Geometry) -> tuple[list[Segment], list[str]]:
    """The segments of a source with their fingerprints, kept for the next job.

    Raises:
        StrainError: See ``Source.segments``.
    """
    segments = source.segments(geometry)
    return segments, [fingerprint(segment, geometry.ifos) for segment in segments]


def fingerprint(segment: Segment, ifos: Sequence[str]) -> str:
    """Digest of a segment's time, length and some of its samples.

    Reading all of a year's strain to know it again would take as long as the search.
    """
    digest = hashlib.sha256(f"{segment.t0_ns} {segment.size}".encode())
    last = max(segment.size - PROBE_SIZE, 0)
    for ifo in ifos:
        digest.update(ifo.encode())
        for start in np.linspace(0, last, PROBES).astype(int):
            digest.update(
                np.asarray(
                    segment.strain[ifo][start : start + PROBE_SIZE], dtype=np.float64
                ).tobytes()
            )
    return digest.hexdigest()[:16]

"""Files of strain, described so that each worker process can open them itself."""

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
"""A fingerprint covers `PROBES` parts of `PROBE_SIZE` samples of each detector."""


@dataclass(frozen=True)
class Source:
    """Files of strain.

    Attributes:
        paths: A background file; or GWOSC files, one for each detector.
        split: Split of the background file; None for GWOSC files.
    """

    paths: tuple[Path, ...]
    split: str | None

    @property
    def name(self) -> str:
        """The file names, for people."""
        return ", ".join(path.name for path in self.paths)

    def segments(self, geometry: Geometry) -> list[Segment]:
        """Open the segments, in order of time.

        Args:
            geometry: The analysis, with its detectors and sample rate.

        Raises:
            StrainError: A file is missing, has another layout, or has no strain.
        """
        if self.split is not None:
            (path,) = self.paths
            return read_background(
                path, self.split, geometry.ifos, geometry.sample_rate
            )
        segments = read_gwosc(self.paths, geometry.ifos, geometry.sample_rate)
        if not segments:
            names = ", ".join(str(path) for path in self.paths)
            raise StrainError(
                f"{names}: expected strain of all detectors at the same time, found "
                "none; give files that overlap in time"
            )
        return segments


@lru_cache(maxsize=1)
def open_once(source: Source, geometry: Geometry) -> tuple[list[Segment], list[str]]:
    """Open a source's segments with their fingerprints; cached for the next job.

    Raises:
        StrainError: See ``Source.segments``.
    """
    segments = source.segments(geometry)
    return segments, [fingerprint(segment, geometry.ifos) for segment in segments]


def fingerprint(segment: Segment, ifos: Sequence[str]) -> str:
    """Digest of a segment's time, length and some of its samples.

    A digest of all samples of a year would take as long as the search.
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

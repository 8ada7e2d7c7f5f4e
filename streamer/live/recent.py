"""Buffer of the newest strain, for the snippets around candidates."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.api.contract.requests import Strain
from chirpwatch.geometry import Geometry
from chirpwatch.strain import NANOSECONDS
from chirpwatch.streamer.snippets import AFTER_LENGTH, BEFORE_LENGTH, strain_body

SPARE_LENGTH = 12
"""Strain that is kept in addition to a snippet, s: a candidate is decided only after
its merger."""


class RecentStrain:
    """Keeps a stretch's newest strain, and cuts out snippets around mergers.

    Args:
        geometry: The analysis.
    """

    def __init__(self, geometry: Geometry) -> None:
        self._ifos, self._rate = geometry.ifos, geometry.sample_rate
        self._size = round((BEFORE_LENGTH + AFTER_LENGTH + SPARE_LENGTH) * self._rate)
        self._strain = np.empty((len(geometry.ifos), 0), np.float32)
        self._mergers: list[int] = []

    def want(self, time_ns: int) -> None:
        """Cut out the strain around a merger, GPS ns, once it has arrived."""
        self._mergers.append(time_ns)

    def push(self, strain: NDArray[Any]) -> None:
        """Append strain, float32 [ifos, samples]."""
        self._strain = np.concatenate([self._strain, strain], axis=1)[:, -self._size :]

    def cut(self, end_ns: int, last: bool = False) -> Iterator[tuple[int, Strain]]:
        """Yield a snippet for each merger whose strain is complete.

        Args:
            end_ns: End of the strain, GPS ns.
            last: Whether the stretch has ended; then snippets may be incomplete.

        Yields:
            Start, GPS ns, and strain of each snippet.
        """
        for time_ns in list(self._mergers):
            # Samples from the merger to the end.
            after = (end_ns - time_ns) * self._rate // NANOSECONDS
            if after < AFTER_LENGTH * self._rate and not last:
                continue
            self._mergers.remove(time_ns)
            size = self._strain.shape[1]
            merger = size - after
            first = max(0, merger - round(BEFORE_LENGTH * self._rate))
            stop = merger + round(AFTER_LENGTH * self._rate)
            series = dict(zip(self._ifos, self._strain[:, first:stop], strict=True))
            start_ns = end_ns - (size - first) * NANOSECONDS // self._rate
            yield start_ns, strain_body(self._rate, series)

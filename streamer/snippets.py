"""Collects the strain around a run's loudest zero-lag events."""

import base64
import heapq
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from chirpwatch.api.contract.requests import Strain
from chirpwatch.strain import NANOSECONDS, Segment

MAX_SNIPPETS = 20
"""Number of events whose strain is sent."""

BEFORE_LENGTH, AFTER_LENGTH = 12.0, 4.0
"""Strain before and after the merger in a snippet, s; shorter at a segment's ends."""


def strain_body(sample_rate: int, series: Mapping[str, Any]) -> Strain:
    """Encode a snippet for the API.

    Args:
        sample_rate: Sample rate, Hz.
        series: Strain of each detector, [size].
    """
    return Strain(
        sample_rate=sample_rate,
        strain={
            ifo: base64.b64encode(np.asarray(samples, dtype="<f4").tobytes()).decode()
            for ifo, samples in series.items()
        },
    )


class Loudest:
    """Selects a run's loudest events; several threads may share it.

    Args:
        ifos: Detectors whose strain is sent.
        count: Number of events to select.
    """

    def __init__(self, ifos: Sequence[str], count: int = MAX_SNIPPETS) -> None:
        self._ifos, self._count = tuple(ifos), count
        self._loudest: list[tuple[float, int, int, Segment]] = []
        self._number = itertools.count()
        self._lock = threading.Lock()

    def offer(self, statistic: float, time_ns: int, segment: Segment) -> None:
        """Consider a zero-lag event for selection.

        Args:
            statistic: Detection statistic.
            time_ns: Merger time, GPS ns.
            segment: Segment that contains it.
        """
        with self._lock:
            # The number breaks ties, as segments cannot be compared.
            entry = statistic, -next(self._number), time_ns, segment
            if len(self._loudest) < self._count:
                heapq.heappush(self._loudest, entry)
            else:
                heapq.heappushpop(self._loudest, entry)

    def strain(self) -> Iterator[tuple[int, Strain]]:
        """Yield start (GPS ns) and strain of each snippet, loudest first."""
        for _, _, time_ns, segment in sorted(
            self._loudest, key=lambda entry: entry[:2], reverse=True
        ):
            rate = segment.sample_rate
            merger = (time_ns - segment.t0_ns) * rate // NANOSECONDS
            first = max(0, merger - round(BEFORE_LENGTH * rate))
            last = min(segment.size, merger + round(AFTER_LENGTH * rate))
            series = {ifo: segment.strain[ifo][first:last] for ifo in self._ifos}
            yield segment.time_ns(first), strain_body(rate, series)

"""The loudest zero-lag events of a run, and the strain around them."""

import base64
import heapq
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from chirpwatch.api.contract.requests import Strain
from chirpwatch.strain import NANOSECONDS, Segment

COUNT = 20
"""Events whose strain is sent."""

BEFORE_LENGTH, AFTER_LENGTH = 12.0, 4.0
"""Strain before and after the merger, s, as far as the segment has it."""


def strain_body(sample_rate: int, series: Mapping[str, Any]) -> Strain:
    """Strain of each detector, as many samples each, as it is sent."""
    return Strain(
        sample_rate=sample_rate,
        strain={
            ifo: base64.b64encode(np.asarray(one, dtype="<f4").tobytes()).decode()
            for ifo, one in series.items()
        },
    )


class Loudest:
    """Keeps the loudest of the events that are offered; safe to share.

    Args:
        ifos: Detectors whose strain is sent.
        count: Events to keep.
    """

    def __init__(self, ifos: Sequence[str], count: int = COUNT) -> None:
        self._ifos, self._count = tuple(ifos), count
        self._kept: list[tuple[float, int, int, Segment]] = []
        self._number = itertools.count()
        self._lock = threading.Lock()

    def offer(self, statistic: float, time_ns: int, segment: Segment) -> None:
        """Consider an event at a GPS time, ns, in zero-lag strain."""
        with self._lock:
            # The number keeps segments, which have no order, from being compared.
            entry = statistic, -next(self._number), time_ns, segment
            if len(self._kept) < self._count:
                heapq.heappush(self._kept, entry)
            else:
                heapq.heappushpop(self._kept, entry)

    def strain(self) -> Iterator[tuple[int, Strain]]:
        """GPS time of the first sample, ns, and strain of each, loudest first."""
        for _, _, time_ns, segment in sorted(
            self._kept, key=lambda entry: entry[:2], reverse=True
        ):
            rate = segment.sample_rate
            merger = (time_ns - segment.t0_ns) * rate // NANOSECONDS
            first = max(0, merger - round(BEFORE_LENGTH * rate))
            last = min(segment.size, merger + round(AFTER_LENGTH * rate))
            series = {ifo: segment.strain[ifo][first:last] for ifo in self._ifos}
            yield segment.time_ns(first), strain_body(rate, series)

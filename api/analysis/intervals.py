"""GPS times, and unions of intervals."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from chirpwatch.geometry import Geometry

Interval = tuple[int, int]
"""Start and end, GPS ns."""


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    """Merge overlapping and touching intervals; the result is ascending."""
    merged: list[Interval] = []
    for start, stop in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def merge_arrays(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> list[Interval]:
    """Merge intervals given as arrays [n]: `merge` for very many intervals."""
    if not starts.size:
        return []
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(stops[order])
    first = np.flatnonzero(np.append(True, starts[1:] > ends[:-1]))
    last = np.append(first[1:], starts.size) - 1
    return list(zip(starts[first].tolist(), ends[last].tolist(), strict=True))


def seconds(time_ns: int) -> float:
    """Convert GPS nanoseconds to GPS seconds, precise to a microsecond."""
    return time_ns / 1e9


def window_lag(geometry: Geometry) -> float:
    """Time from the centre of a score's window to the score's time, s.

    The window is the strain that the whitened kernel depends on; a score's time is the
    right edge of that strain.
    """
    return (geometry.fduration + geometry.kernel_length) / 2

"""Times and intervals of time."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Interval = tuple[int, int]
"""Begin and end, GPS ns."""


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    """The union of intervals, as few as possible, in order."""
    merged: list[Interval] = []
    for start, stop in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def seconds(time_ns: int) -> float:
    """GPS nanoseconds as GPS seconds; a double keeps them to a microsecond."""
    return time_ns / 1e9


def merge_arrays(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> list[Interval]:
    """The same of very many intervals, given as arrays [n]."""
    if not starts.size:
        return []
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(stops[order])
    first = np.flatnonzero(np.append(True, starts[1:] > ends[:-1]))
    last = np.append(first[1:], starts.size) - 1
    return list(zip(starts[first].tolist(), ends[last].tolist(), strict=True))

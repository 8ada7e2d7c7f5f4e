"""Times and intervals of time."""

from collections.abc import Iterable

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

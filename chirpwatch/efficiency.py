"""Detection efficiency: which injections a search finds, and their fraction."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

MATCH_WINDOW = 0.5
"""Largest difference between the GPS times of an injection and its event, s.

An event's time is accurate to 1/16 s for a clear signal, and to a few strides of 1/8 s
for a quiet one. Clustering keeps events 8 s apart, so at most one injection in eight
has an event of noise within half a second, and that event is rarely above a threshold.
"""

SNR_EDGES = (0.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0, math.inf)
"""Default bin edges for efficiency against network SNR."""


@dataclass(frozen=True)
class EfficiencyBin:
    """Efficiency in one bin of an injection parameter.

    Attributes:
        low_edge: Lower edge of the bin, inclusive.
        high_edge: Upper edge of the bin, exclusive; may be infinite.
        injections: Number of injections in the bin, found and missed.
        found: Number of injections found.
        efficiency: found / injections; NaN for an empty bin.
        low: Lower end of the efficiency's 68 % Wilson interval.
        high: Upper end of the efficiency's 68 % Wilson interval.
    """

    low_edge: float
    high_edge: float
    injections: int
    found: int
    efficiency: float
    low: float
    high: float


def wilson_interval(found: int, total: int) -> tuple[float, float]:
    """Wilson's 68 % confidence interval for an efficiency of ``found / total``.

    Unlike the normal approximation, it has a width above 0 and stays within [0, 1] if
    none or all injections are found. For a ``total`` of 0 it is (0, 1).

    Source: Wilson 1927, JASA 22, 209.
    """
    if total == 0:
        return 0.0, 1.0
    centre = (found + 0.5) / (total + 1)
    half = math.sqrt(found * (total - found) / total + 0.25) / (total + 1)
    return max(0.0, centre - half), min(1.0, centre + half)


def match_injections(
    injection_times: Sequence[int] | NDArray[np.int64],
    event_times: Sequence[int] | NDArray[np.int64],
    statistics: ArrayLike,
    window: float = MATCH_WINDOW,
) -> NDArray[np.int64]:
    """Match events to injections by time, one to one.

    In order of loudness, each event takes the nearest unmatched injection that is at
    most ``window`` away. An injection without an event is missed.

    Args:
        injection_times: GPS times of the injections, ns, in any order.
        event_times: GPS times of the events, ns, in any order.
        statistics: Statistic of each event.
        window: Largest time difference, s, inclusive.

    Returns:
        Index of each injection's event, or -1 if the injection is missed.
    """
    times = np.asarray(injection_times, dtype=np.int64)
    events = np.asarray(event_times, dtype=np.int64)
    order = np.argsort(times, kind="stable")
    window_ns = round(window * 1e9)
    first = np.searchsorted(times[order], events - window_ns, side="left")
    last = np.searchsorted(times[order], events + window_ns, side="right")
    matched = np.full(times.size, -1, dtype=np.int64)
    # Ties in the statistic go to the earlier event, so that the result does not depend
    # on the order of the events.
    for event in np.lexsort((events, -np.asarray(statistics, dtype=np.float64))):
        near = order[first[event] : last[event]]
        free = near[matched[near] < 0]
        if free.size:
            matched[free[np.argmin(np.abs(times[free] - events[event]))]] = event
    return matched


def even_edges(values: ArrayLike, bins: int) -> list[float]:
    """Edges of equally wide bins that cover all values; empty without values."""
    array = np.asarray(values, dtype=np.float64)
    if not array.size:
        return []
    edges = np.linspace(array.min(), array.max(), bins + 1)
    # Upper edges are exclusive, and the last bin must hold the largest value.
    edges[-1] = np.nextafter(edges[-1], math.inf)
    return [float(edge) for edge in np.unique(edges)]


def efficiency(
    values: ArrayLike, found: ArrayLike, edges: Sequence[float] = SNR_EDGES
) -> list[EfficiencyBin]:
    """Fraction of injections found, in bins of a parameter such as network SNR.

    Args:
        values: Parameter of each injection, found or missed, [injections].
        found: Whether each injection was found, [injections].
        edges: Bin edges, ascending.
    """
    values = np.asarray(values, dtype=np.float64)
    hits = np.asarray(found, dtype=bool)
    bins = []
    for low, high in itertools.pairwise(edges):
        inside = (values >= low) & (values < high)
        total, count = int(inside.sum()), int((inside & hits).sum())
        ratio = count / total if total else math.nan
        interval = wilson_interval(count, total)
        bins.append(EfficiencyBin(low, high, total, count, ratio, *interval))
    return bins

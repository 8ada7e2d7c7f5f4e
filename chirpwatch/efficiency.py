"""Which injections were found, and the fraction found, with its interval."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

MATCH_WINDOW = 0.5
"""Most that an event and its injection may differ in GPS time, s.

An event's time is good to 1/16 s for a clear signal and wanders by a few strides of
1/8 s for a quiet one; clustering keeps background events 8 s apart, so that half a
second either way picks up an unrelated event for one injection in eight at most, and
hardly ever one that is above a threshold.
"""

SNR_EDGES = (0.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0, math.inf)
"""Edges of the bins in network SNR that efficiency is given in."""


@dataclass(frozen=True)
class EfficiencyBin:
    """Injections found in one bin of a parameter.

    Attributes:
        low_edge: Lower edge, inclusive.
        high_edge: Upper edge, exclusive; may be infinite.
        injections: Injections in the bin: the denominator.
        found: Those of them that were found.
        efficiency: found / injections; not a number for an empty bin.
        low: Lower end of the 68 % Wilson interval.
        high: Upper end of the 68 % Wilson interval.
    """

    low_edge: float
    high_edge: float
    injections: int
    found: int
    efficiency: float
    low: float
    high: float


def wilson_interval(found: int, total: int) -> tuple[float, float]:
    """Efficiencies that `found` of `total` is compatible with, at one sigma (68 %).

    Wilson 1927, JASA 22, 209: unlike the normal interval it is never empty and never
    leaves [0, 1], also for none or all found. (0, 1) when there is nothing to count.
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
    """Which event belongs to which injection.

    The loudest event chooses first, and takes the nearest injection that is still
    free and at most `window` away. So an event explains one injection at most, an
    injection is explained by one event at most, and one without an event is missed.

    Args:
        injection_times: GPS times of the injections, ns, in any order.
        event_times: GPS times of the events, ns, in any order.
        statistics: Statistic of each event.
        window: Most that the two may differ, s, inclusive.

    Returns:
        For each injection the index of its event, or -1 for a missed one.
    """
    times = np.asarray(injection_times, dtype=np.int64)
    events = np.asarray(event_times, dtype=np.int64)
    order = np.argsort(times, kind="stable")
    window_ns = round(window * 1e9)
    first = np.searchsorted(times[order], events - window_ns, side="left")
    last = np.searchsorted(times[order], events + window_ns, side="right")
    matched = np.full(times.size, -1, dtype=np.int64)
    # Ties in the statistic go to the earlier event, so that the order in which the
    # events arrived doesn't matter.
    for event in np.lexsort((events, -np.asarray(statistics, dtype=np.float64))):
        near = order[first[event] : last[event]]
        free = near[matched[near] < 0]
        if free.size:
            matched[free[np.argmin(np.abs(times[free] - events[event]))]] = event
    return matched


def even_edges(values: ArrayLike, bins: int) -> list[float]:
    """Edges of bins of one width that hold every value; none for no values."""
    found = np.asarray(values, dtype=np.float64)
    if not found.size:
        return []
    edges = np.linspace(found.min(), found.max(), bins + 1)
    # The upper edges are exclusive.
    edges[-1] = np.nextafter(edges[-1], math.inf)
    return [float(edge) for edge in np.unique(edges)]


def efficiency(
    values: ArrayLike, found: ArrayLike, edges: Sequence[float] = SNR_EDGES
) -> list[EfficiencyBin]:
    """Fraction of injections found, in bins of a parameter, such as network SNR.

    Args:
        values: The parameter of every injection that was made.
        found: Whether it was found; a missed one stays in the denominator.
        edges: Ascending bin edges.
    """
    values = np.asarray(values, dtype=np.float64)
    hits = np.asarray(found, dtype=bool)
    bins = []
    for low, high in itertools.pairwise(edges):
        inside = (values >= low) & (values < high)
        total, good = int(inside.sum()), int((inside & hits).sum())
        ratio = good / total if total else math.nan
        bins.append(
            EfficiencyBin(low, high, total, good, ratio, *wilson_interval(good, total))
        )
    return bins

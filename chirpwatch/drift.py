"""Rate drift: whether a run's events are as many and as loud as its background says."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, bdtrc

from chirpwatch.background import Background

DRIFT_POINTS = 8
"""Number of statistics at which expected and observed counts are compared, at most."""


@dataclass(frozen=True)
class DriftPoint:
    """Expected and observed number of events with at least a given statistic.

    Attributes:
        statistic: The statistic.
        expected: Number of events expected from the background rate.
        observed: Number of events observed.
        p_value: Two-sided p-value of the observed number.
    """

    statistic: float
    expected: float
    observed: int
    p_value: float


def rate_drift(
    background: Background, statistics: ArrayLike, livetime: float
) -> tuple[list[DriftPoint], float]:
    """Test whether observed events have the rates that the background predicts.

    The test compares counts of events at several statistics, whose ranks in the
    background are evenly spaced in their logarithm. Observed and background counts are
    Poisson with unknown common rate. Given their sum, the observed count is binomial,
    with probability livetime / (livetime + background livetime) (Przyborowski &
    Wilenski 1940, Biometrika 31, 313).

    Args:
        background: Background of the same search.
        statistics: Statistics of the observed events.
        livetime: Livetime of the observation, s.

    Returns:
        The points, in ascending order of the statistic; and the p-value of the most
        deviating one, with Bonferroni's correction for their number. Without livetime
        or background events, no points and 1.
    """
    values = np.asarray(statistics, dtype=np.float64)
    if not (livetime > 0 and background.size):
        return [], 1.0
    # From the rank at which one event is expected in the livetime, to the last rank.
    first = max(1.0, background.livetime / livetime)
    ranks = np.geomspace(min(first, background.size), background.size, DRIFT_POINTS)
    share = livetime / (livetime + background.livetime)
    points = []
    for statistic in sorted({background.at_rank(int(rank)) for rank in ranks}):
        count = background.count(statistic)
        observed = int(np.count_nonzero(values >= statistic))
        total = count + observed
        low, high = bdtr(observed, total, share), bdtrc(observed - 1, total, share)
        p_value = min(1.0, 2 * min(float(low), float(high) if observed else 1.0))
        expected = count / background.livetime * livetime
        points.append(DriftPoint(statistic, expected, observed, p_value))
    smallest = min(point.p_value for point in points)
    return points, min(1.0, len(points) * smallest)

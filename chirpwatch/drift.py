"""Whether a run's events are as many and as loud as its background predicts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, bdtrc

from chirpwatch.background import Background


@dataclass(frozen=True)
class DriftPoint:
    """Events of at least a statistic, expected and observed.

    Attributes:
        statistic: Statistic.
        expected: Events that background leads to expect.
        observed: Events that there are.
        p_value: Probability of a number as unlikely, two-sided.
    """

    statistic: float
    expected: float
    observed: int
    p_value: float


DRIFT_POINTS = 8


def rate_drift(
    background: Background, statistics: ArrayLike, livetime: float
) -> tuple[list[DriftPoint], float]:
    """Whether events are as many, and as loud, as background says.

    Of as many events as background has, at statistics of ranks that are spread evenly
    in their logarithm: the expected number is background's rate times livetime, and the
    observed one a draw from a Poisson distribution whose mean is known from background
    as well as its count says. Given both counts, the observed one is binomial
    (Przyborowski & Wilenski 1940, Biometrika 31, 313).

    Args:
        background: What is expected.
        statistics: Of the events that were observed.
        livetime: Time they were observed in, s.

    Returns:
        The points, ascending, and the probability that any of them deviates as much
        (Bonferroni: their number times the smallest one).
    """
    values = np.asarray(statistics, dtype=np.float64)
    if not (livetime > 0 and background.size):
        return [], 1.0
    # The loudest rank of which an event is expected at all, to all of them.
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

"""False-alarm rates, and which injections were found: what the events mean.

Everything here follows one rule: an event *passes* a threshold when its statistic is
at least the threshold, and background is counted with the same "at least". Hence
``statistic >= background.threshold_at_far(rate)`` exactly when
``background.far(statistic).far_per_year <= rate``.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chirpwatch.errors import StatisticsError

JULIAN_YEAR = 365.25 * 86400
"""Length of the year that rates are counted in, s."""

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
class FalseAlarmRate:
    """How often noise alone gives an event at least this loud.

    Attributes:
        far_per_year: (count + 1) / livetime, per Julian year.
        count: Background events with a statistic at least as large.
        livetime: Background livetime, s.
        saturated: No background event is as loud, so that the rate is limited by the
            livetime: the true one is no more than about this, and may be far less.
    """

    far_per_year: float
    count: int
    livetime: float
    saturated: bool


@dataclass(frozen=True)
class IfarPoint:
    """One point of the curve of inverse false-alarm rate against statistic.

    Attributes:
        statistic: Statistic.
        ifar_years: Inverse false-alarm rate, Julian years.
        ifar_years_low: Lower end of its Poisson band (84 % confidence), years.
        ifar_years_high: Upper end (84 % confidence), years; infinite where no
            background event is as loud.
        count: Background events with a statistic at least as large.
        saturated: The count is zero: the IFAR is a lower limit.
    """

    statistic: float
    ifar_years: float
    ifar_years_low: float
    ifar_years_high: float
    count: int
    saturated: bool


@dataclass(frozen=True)
class EfficiencyBin:
    """Injections found in one bin of network SNR.

    Attributes:
        snr_low: Lower edge, inclusive.
        snr_high: Upper edge, exclusive; may be infinite.
        injections: Injections in the bin: the denominator.
        found: Those of them that were found.
        efficiency: found / injections; not a number for an empty bin.
        low: Lower end of the 68 % Wilson interval.
        high: Upper end of the 68 % Wilson interval.
    """

    snr_low: float
    snr_high: float
    injections: int
    found: int
    efficiency: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Background:
    """Events of time-shifted data and the livetime they come from.

    Attributes:
        statistics: Statistic of every background event, ascending.
        livetime: Valid time of all slides together, s.
    """

    statistics: NDArray[np.float64]
    livetime: float

    @classmethod
    def of(cls, statistics: ArrayLike, livetime: float) -> Self:
        """Make a background of events in any order.

        Raises:
            StatisticsError: A statistic that is not finite, or no livetime.
        """
        values = np.sort(np.asarray(statistics, dtype=np.float64).ravel())
        if not np.isfinite(values).all():
            raise StatisticsError("background: expected finite statistics")
        if not (math.isfinite(livetime) and livetime > 0):
            raise StatisticsError(
                f"background: expected a livetime above 0 s, found {livetime} s; "
                "a false-alarm rate needs timeslides with valid data"
            )
        return cls(values, float(livetime))

    def count(self, statistic: float) -> int:
        """Background events with a statistic of at least `statistic`."""
        return self.statistics.size - int(np.searchsorted(self.statistics, statistic))

    def far(self, statistic: float) -> FalseAlarmRate:
        """False-alarm rate of an event, (n + 1) / T.

        The added one is the event itself, which under the noise hypothesis is a draw
        from the same population: without it the loudest event would have a rate of
        zero (Usman et al. 2016, arXiv:1508.02357, eq. 12).

        Raises:
            StatisticsError: The statistic is not finite.
        """
        if not math.isfinite(statistic):
            raise StatisticsError(f"expected a finite statistic, found {statistic}")
        count = self.count(statistic)
        return FalseAlarmRate(self._rate(count), count, self.livetime, count == 0)

    def _rate(self, count: int) -> float:
        return (count + 1) / self.livetime * JULIAN_YEAR

    def threshold_at_far(self, far_per_year: float) -> float:
        """Smallest statistic whose false-alarm rate is at most `far_per_year`.

        Returns:
            The threshold; minus infinity when the rate allows every event.

        Raises:
            StatisticsError: The livetime is too short to reach this rate. No
                threshold could be given that background supports.
        """
        if not (math.isfinite(far_per_year) and far_per_year > 0):
            raise StatisticsError(
                f"expected a false-alarm rate above 0 per year, found {far_per_year}"
            )
        expected = far_per_year * self.livetime / JULIAN_YEAR
        allowed = int(min(expected + 1, self.statistics.size))
        # The quotient may round across a whole number; far() has the last word.
        while allowed >= 0 and self._rate(allowed) > far_per_year:
            allowed -= 1
        if allowed < 0:
            raise StatisticsError(
                f"the background of {self.livetime:.1f} s reaches "
                f"{self._rate(0):.4g} per year at best, not {far_per_year:.4g}; "
                "analyse more timeslides, or ask for a higher rate"
            )
        if allowed >= self.statistics.size:
            return -math.inf
        # This many events may be as loud, so the next one must fall short of it.
        return math.nextafter(float(self.statistics[-1 - allowed]), math.inf)

    def ifar_curve(self, max_points: int = 300) -> list[IfarPoint]:
        """IFAR at the statistics of background events, ascending.

        The last point lies just above the loudest event and is saturated. Of more
        than `max_points` events, the loudest third is kept and the rest thinned
        evenly in the logarithm of the rank.
        """
        counts = np.arange(1, self.statistics.size + 1)
        if counts.size > max_points:
            ranks = np.geomspace(max_points // 3, counts.size, 2 * max_points // 3)
            kept = [np.arange(1, max_points // 3 + 1), ranks.round().astype(int)]
            counts = np.unique(np.concatenate(kept))
        values = np.unique(self.statistics[self.statistics.size - counts])
        points = [self._point(float(value)) for value in values]
        if points:
            points.append(self._point(math.nextafter(points[-1].statistic, math.inf)))
        return points

    def _point(self, statistic: float) -> IfarPoint:
        count = self.count(statistic)
        years = self.livetime / JULIAN_YEAR
        low, high = poisson_interval(count)
        return IfarPoint(
            statistic=statistic,
            ifar_years=years / (count + 1),
            ifar_years_low=years / high,
            ifar_years_high=years / low if low else math.inf,
            count=count,
            saturated=count == 0,
        )


def poisson_interval(count: int) -> tuple[float, float]:
    """Expected counts that a count is compatible with, at one sigma.

    Each end is an 84 % limit. Gehrels 1986, ApJ 303, 336, equations 9 and 12 with
    S = 1: the exact limits to a few per cent, better for larger counts.
    """
    more = count + 1
    high = more * (1 - 1 / (9 * more) + 1 / (3 * math.sqrt(more))) ** 3
    if count == 0:
        return 0.0, high
    low = count * (1 - 1 / (9 * count) - 1 / (3 * math.sqrt(count))) ** 3
    return low, high


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


def efficiency_by_snr(
    snr: ArrayLike, found: ArrayLike, edges: Sequence[float] = SNR_EDGES
) -> list[EfficiencyBin]:
    """Fraction of injections found, in bins of network SNR.

    Args:
        snr: Network SNR of every injection that was made.
        found: Whether it was found; a missed one stays in the denominator.
        edges: Ascending bin edges.
    """
    values = np.asarray(snr, dtype=np.float64)
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

"""Background events from timeslides, and the false-alarm rates that they give.

An event *passes* a threshold if its statistic is at least the threshold. Background
events are counted with the same "at least", so
``statistic >= background.threshold_at_far(rate)`` if and only if
``background.far(statistic).far_per_year <= rate``.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from chirpwatch.errors import StatisticsError
from chirpwatch.units import JULIAN_YEAR

BINS_PER_UNIT = 128
"""Histogram bins per unit of the statistic, for quiet events.

It is a power of two, so that every bin edge is exact. A false-alarm rate falls by a
factor of about e per unit of the statistic, and so by less than 1 % per bin.
"""

MAX_BINS = 2**14
"""Largest number of bins below the floor; the lowest bin also holds quieter events."""


@dataclass(frozen=True)
class FalseAlarmRate:
    """Rate at which noise alone produces events at least as loud as a statistic.

    Attributes:
        far_per_year: (count + 1) / livetime, per Julian year.
        count: Background events with a statistic at least as large; an upper limit if
            ``uncertain`` is above 0.
        uncertain: Events included in the count that share the statistic's histogram
            bin and may be quieter. The true count is at least ``count - uncertain``.
        livetime: Background livetime, s.
        saturated: No background event is as loud, so the rate is limited by the
            livetime: it is an upper limit, and the true rate may be far lower.
    """

    far_per_year: float
    count: int
    uncertain: int
    livetime: float
    saturated: bool

    @property
    def ifar_years(self) -> float:
        """Inverse false-alarm rate, Julian years."""
        return 1 / self.far_per_year


@dataclass(frozen=True)
class IfarPoint:
    """One point of the curve of inverse false-alarm rate (IFAR) against statistic.

    Attributes:
        statistic: Detection statistic.
        ifar_years: Inverse false-alarm rate, Julian years.
        ifar_years_low: Lower limit from Poisson counting (84 % confidence), years.
        ifar_years_high: Upper limit (84 % confidence), years; infinite where no
            background event is as loud.
        count: Background events with a statistic at least as large.
        saturated: The count is zero, so the IFAR is a lower limit.
    """

    statistic: float
    ifar_years: float
    ifar_years_low: float
    ifar_years_high: float
    count: int
    saturated: bool


@dataclass(frozen=True, eq=False)
class Background:
    """Statistics of the events in timeslides, and the timeslides' livetime.

    Each event from a floor on is stored; quieter events are counted in a histogram with
    bins of 1/128. Counts are therefore exact above the floor. Below it they include the
    statistic's whole bin, so the background is never underestimated. Memory and time
    stay bounded for any number of events.

    Attributes:
        loud: Statistic of every background event from the floor on, ascending.
        livetime: Valid time summed over all timeslides, s.
        floor: Smallest statistic from which ``loud`` is complete, a bin edge; minus
            infinity if all events are stored.
        quiet: Number of events in each bin below the floor, ascending; the first bin
            also holds all quieter events.
    """

    loud: NDArray[np.float64]
    livetime: float
    floor: float = -math.inf
    quiet: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(
        cls, statistics: ArrayLike, livetime: float, max_loud: int | None = None
    ) -> Self:
        """Make a background from events in any order.

        Args:
            statistics: Statistic of each event.
            livetime: Valid time summed over all timeslides, s.
            max_loud: Largest number of events in ``loud``; None means all events.

        Raises:
            StatisticsError: A statistic is not finite, or the livetime is not above 0.
        """
        values = np.sort(np.asarray(statistics, dtype=np.float64).ravel())
        if not np.isfinite(values).all():
            number = int(np.count_nonzero(~np.isfinite(values)))
            raise StatisticsError(
                f"background: expected finite statistics, found {number} of "
                f"{values.size} that are NaN or infinite"
            )
        if not (math.isfinite(livetime) and livetime > 0):
            raise StatisticsError(
                f"background: expected a livetime above 0 s, found {livetime} s; "
                "a false-alarm rate needs timeslides with valid data"
            )
        background = cls(values, float(livetime))
        return background if max_loud is None else background._limited(max_loud)

    @classmethod
    def merge(cls, parts: Iterable[Self], max_loud: int | None = None) -> Self:
        """Merge backgrounds; the highest of their floors becomes the common floor.

        Args:
            parts: At least one background.
            max_loud: Largest number of events in ``loud``; None means all events from
                the common floor on.
        """
        backgrounds = list(parts)
        floor = max(part.floor for part in backgrounds)
        raised = [part._raised(floor) for part in backgrounds]
        quiet = np.zeros(max(part.quiet.size for part in raised), np.int64)
        for part in raised:
            quiet[quiet.size - part.quiet.size :] += part.quiet
        loud = np.concatenate([part.loud for part in raised])
        # The stable sort is fast for concatenated parts that are sorted already.
        loud.sort(kind="stable")
        livetime = math.fsum(part.livetime for part in backgrounds)
        merged = cls(loud, livetime, floor, quiet)
        return merged if max_loud is None else merged._limited(max_loud)

    def _limited(self, max_loud: int) -> Self:
        """Raise the floor so that at most `max_loud` events lie above it."""
        if self.loud.size <= max_loud:
            return self
        loudest_below = float(self.loud[self.loud.size - max_loud - 1])
        return self._raised(float(_bin_number(loudest_below) + 1) / BINS_PER_UNIT)

    def _raised(self, floor: float) -> Self:
        """Raise the floor to ``floor``, a bin edge that is at least the present one."""
        if floor == self.floor:
            return self
        first = int(np.searchsorted(self.loud, floor))
        below = _bin_number(self.loud[:first]) - floor * BINS_PER_UNIT
        places = np.maximum(below, -MAX_BINS).astype(np.int64)
        size = int(-places[0]) if places.size else 0
        if self.quiet.size:
            moved = min(round((floor - self.floor) * BINS_PER_UNIT), MAX_BINS)
            size = max(size, min(moved + self.quiet.size, MAX_BINS))
        quiet = np.bincount(places + size, minlength=size).astype(np.int64)
        if self.quiet.size:
            old = np.arange(self.quiet.size) - self.quiet.size - moved + size
            np.add.at(quiet, np.maximum(old, 0), self.quiet)
        return type(self)(self.loud[first:], self.livetime, floor, quiet)

    @property
    def size(self) -> int:
        """Number of background events, loud and quiet."""
        return self.loud.size + int(self.quiet.sum())

    @property
    def loudest(self) -> float | None:
        """Largest statistic, or None without events.

        Where all events are quiet, it is the lower edge of the loudest event's bin.
        """
        if self.loud.size:
            return float(self.loud[-1])
        return self.at_rank(1) if self.size else None

    def count(self, statistic: float) -> int:
        """Number of background events with a statistic of at least ``statistic``.

        Below the floor, all events in the statistic's bin are counted.
        """
        return int(self.counts(statistic))

    def counts(self, statistics: ArrayLike) -> NDArray[np.int64]:
        """Vectorized ``count``: the number of events for each statistic."""
        values = np.asarray(statistics, dtype=np.float64)
        counts = self.loud.size - np.searchsorted(self.loud, values)
        # Quiet events from each bin upwards; 0 for statistics from the floor on.
        above = np.append(np.cumsum(self.quiet[::-1])[::-1], 0)
        places = np.minimum(self._bins(values), self.quiet.size)
        result: NDArray[np.int64] = counts + above[places]
        return result

    @property
    def lowest_far_per_year(self) -> float | None:
        """False-alarm rate of an event louder than all background: 1 / livetime.

        None without livetime.
        """
        return self._rate(0) if self.livetime else None

    def rates(self, counts: ArrayLike) -> NDArray[np.float64]:
        """False-alarm rates (n + 1) / T for counts n, per Julian year."""
        return (np.asarray(counts) + 1) / self.livetime * JULIAN_YEAR

    def _bins(self, statistics: NDArray[np.float64]) -> NDArray[np.int64]:
        """Index of each statistic's bin; at least ``quiet.size`` from the floor on."""
        if not self.quiet.size:
            return np.zeros(statistics.shape, np.int64)
        below = _bin_number(statistics) - self.floor * BINS_PER_UNIT
        bins = np.clip(below, -MAX_BINS, 0).astype(np.int64) + self.quiet.size
        return np.maximum(bins, 0)

    def _uncertain(self, statistic: float) -> int:
        """Number of events in ``count(statistic)`` that may be quieter than it."""
        if statistic >= self.floor or not self.quiet.size:
            return 0
        index = int(self._bins(np.array(statistic)))
        # At a bin's lower edge all events in the bin are at least as loud. But the
        # first bin also holds quieter events.
        edge = self._edge(index)
        return 0 if index and statistic == edge else int(self.quiet[index])

    def _edge(self, index: int) -> float:
        """Lower edge of a bin."""
        return self.floor - (self.quiet.size - index) / BINS_PER_UNIT

    def far(self, statistic: float) -> FalseAlarmRate:
        """False-alarm rate of an event, (n + 1) / T, for its statistic.

        The 1 is the event itself, which under the noise hypothesis is drawn from the
        same population as the background. Without it, the loudest event would have a
        rate of zero (Usman et al. 2016, arXiv:1508.02357, eq. 12).

        Raises:
            StatisticsError: The statistic is not finite.
        """
        if not math.isfinite(statistic):
            raise StatisticsError(
                f"false-alarm rate: expected a finite statistic, found {statistic}"
            )
        count = self.count(statistic)
        return FalseAlarmRate(
            far_per_year=self._rate(count),
            count=count,
            uncertain=self._uncertain(statistic),
            livetime=self.livetime,
            saturated=count == 0,
        )

    def _rate(self, count: int) -> float:
        return float(self.rates(count))

    def threshold_at_far(self, far_per_year: float) -> float:
        """Smallest statistic whose false-alarm rate is at most ``far_per_year``.

        Returns:
            The threshold; minus infinity if every event passes.

        Raises:
            StatisticsError: The rate is not above 0, or is below 1 / livetime, the
                lowest that this background can resolve.
        """
        if not (math.isfinite(far_per_year) and far_per_year > 0):
            raise StatisticsError(
                "threshold: expected a false-alarm rate above 0 per year, found "
                f"{far_per_year}"
            )
        expected = far_per_year * self.livetime / JULIAN_YEAR
        allowed = int(min(expected + 1, self.size))
        # The product may round across an integer, so far()'s own formula decides.
        while allowed >= 0 and self._rate(allowed) > far_per_year:
            allowed -= 1
        if allowed < 0:
            raise StatisticsError(
                f"the background of {self.livetime:.1f} s reaches "
                f"{self._rate(0):.4g} per year at best, not {far_per_year:.4g}; "
                "analyse more timeslides, or ask for a higher rate"
            )
        if allowed >= self.size:
            return -math.inf
        # `allowed` events may pass, so the threshold lies just above the next one.
        if allowed < self.loud.size:
            return math.nextafter(float(self.loud[-1 - allowed]), math.inf)
        above = self.loud.size + np.cumsum(self.quiet[::-1])
        bins = int(np.searchsorted(above, allowed, side="right"))
        return self._edge(self.quiet.size - bins)

    def ifar_curve(self, max_points: int = 300) -> list[IfarPoint]:
        """Curve of IFAR at the statistics of background events, ascending.

        The last point lies just above the loudest event and is saturated. If there are
        more than ``max_points`` events, the ``max_points / 3`` loudest are taken, and
        quieter ones at ranks spaced evenly in their logarithm. Below the floor, points
        lie at bin edges.
        """
        counts = np.arange(1, min(self.size, max_points) + 1)
        if self.size > max_points:
            ranks = np.geomspace(max_points // 3, self.size, 2 * max_points // 3)
            chosen = [np.arange(1, max_points // 3 + 1), ranks.round().astype(int)]
            counts = np.unique(np.concatenate(chosen))
        values = sorted({self.at_rank(int(count)) for count in counts})
        if not values:
            return []
        above = math.nextafter(values[-1], math.inf) if self.loud.size else self.floor
        return [self._point(value) for value in (*values, above)]

    def at_rank(self, rank: int) -> float:
        """Statistic of the event with a rank, where 1 is the loudest.

        Below the floor, it is the lower edge of the event's bin.
        """
        if rank <= self.loud.size:
            return float(self.loud[-rank])
        above = self.loud.size + np.cumsum(self.quiet[::-1])
        return self._edge(self.quiet.size - 1 - int(np.searchsorted(above, rank)))

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


def finite(value: float) -> float | None:
    """Return the value, or None if it is infinite or NaN, which JSON cannot hold."""
    return value if math.isfinite(value) else None


def _bin_number(statistic: ArrayLike) -> NDArray[np.float64]:
    """Index of a statistic's bin; exact, as ``BINS_PER_UNIT`` is a power of two."""
    numbers: NDArray[np.float64] = np.floor(np.multiply(statistic, BINS_PER_UNIT))
    return numbers


def false_alarm_probability(far_per_year: float, observing_time: float) -> float:
    """False-alarm probability: that noise alone gives at least one event at a rate.

    1 - exp(-FAR T), as false alarms are a Poisson process (Usman et al. 2016,
    arXiv:1508.02357, eq. 13).

    Args:
        far_per_year: False-alarm rate, per Julian year.
        observing_time: Livetime of the search, s.
    """
    return -math.expm1(-far_per_year * observing_time / JULIAN_YEAR)


def significance(probability: float) -> float:
    """Convert a one-sided p-value to standard deviations of a normal distribution."""
    return -float(ndtri(probability))


def poisson_interval(count: int) -> tuple[float, float]:
    """Confidence interval for a Poisson mean, given a count, at one sigma.

    Each end is a one-sided 84 % limit. Source: Gehrels 1986, ApJ 303, 336, equations 9
    and 12 with S = 1; they are right to a few per cent, and better for larger counts.
    """
    following = count + 1
    high = following * (1 - 1 / (9 * following) + 1 / (3 * math.sqrt(following))) ** 3
    if count == 0:
        return 0.0, high
    low = count * (1 - 1 / (9 * count) - 1 / (3 * math.sqrt(count))) ** 3
    return low, high

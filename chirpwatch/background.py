"""Background events, and the false-alarm rates that follow from them.

An event *passes* a threshold if its statistic is at least the threshold, and
background events are counted with the same "at least". Hence
``statistic >= background.threshold_at_far(rate)`` exactly if
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
"""Bins that quiet background is counted in, for each unit of the statistic. A power of
two, so that every edge is an exact number. A false-alarm rate falls by a factor of
about e for each unit: a bin more or less changes it by less than 1 %."""

MOST_BINS = 2**14
"""Bins below the floor; the lowest one holds everything that is quieter as well."""


@dataclass(frozen=True)
class FalseAlarmRate:
    """How often noise alone gives an event at least this loud.

    Attributes:
        far_per_year: (count + 1) / livetime, per Julian year.
        count: Background events with a statistic at least as large; at most, where
            some are uncertain.
        uncertain: How many of the count share the statistic's bin below the floor, and
            may be quieter: the true count is no less than ``count - uncertain``.
        livetime: Background livetime, s.
        saturated: No background event is as loud, so that the rate is limited by the
            livetime: the true one is no more than about this, and may be far less.
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


@dataclass(frozen=True, eq=False)
class Background:
    """Events of time-shifted data and the livetime they come from.

    The loud ones are kept each, the quiet ones below a floor are counted in bins of
    1/128: what is said of the loud is exact, and of the quiet wrong by one bin at most,
    always towards more background. So as many events as there may be take the same
    memory and time.

    Attributes:
        loud: Statistic of every background event from the floor on, ascending.
        livetime: Valid time of all slides together, s.
        floor: Smallest statistic that ``loud`` is complete from, an edge of a bin;
            minus infinity if all events are kept.
        quiet: Events in each bin below the floor, ascending; the first bin that is
            there holds all that are quieter, too.
    """

    loud: NDArray[np.float64]
    livetime: float
    floor: float = -math.inf
    quiet: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(
        cls, statistics: ArrayLike, livetime: float, kept: int | None = None
    ) -> Self:
        """Make a background of events in any order.

        Args:
            statistics: Of every event.
            livetime: Valid time of all slides together, s.
            kept: Most events that are kept each; all if None.

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
        whole = cls(values, float(livetime))
        return whole if kept is None else whole._at_most(kept)

    @classmethod
    def together(cls, parts: Iterable[Self], kept: int | None = None) -> Self:
        """Put backgrounds together; the highest floor becomes that of all.

        Args:
            parts: One or more.
            kept: Most events that are kept each; all from the floor on if None.
        """
        whole = list(parts)
        floor = max(part.floor for part in whole)
        raised = [part._above(floor) for part in whole]
        quiet = np.zeros(max(part.quiet.size for part in raised), np.int64)
        for part in raised:
            quiet[quiet.size - part.quiet.size :] += part.quiet
        loud = np.concatenate([part.loud for part in raised])
        # Each part is sorted already, which this kind of sort makes use of.
        loud.sort(kind="stable")
        livetime = math.fsum(part.livetime for part in whole)
        merged = cls(loud, livetime, floor, quiet)
        return merged if kept is None else merged._at_most(kept)

    def _at_most(self, kept: int) -> Self:
        """The same with a floor so high that no more than `kept` events are above."""
        if self.loud.size <= kept:
            return self
        last = float(self.loud[self.loud.size - kept - 1])
        return self._above(float(_bin_number(last) + 1) / BINS_PER_UNIT)

    def _above(self, floor: float) -> Self:
        """The same with a floor that is no lower than its own."""
        if floor == self.floor:
            return self
        first = int(np.searchsorted(self.loud, floor))
        below = _bin_number(self.loud[:first]) - floor * BINS_PER_UNIT
        places = np.maximum(below, -MOST_BINS).astype(np.int64)
        size = int(-places[0]) if places.size else 0
        if self.quiet.size:
            moved = min(round((floor - self.floor) * BINS_PER_UNIT), MOST_BINS)
            size = max(size, min(moved + self.quiet.size, MOST_BINS))
        quiet = np.bincount(places + size, minlength=size).astype(np.int64)
        if self.quiet.size:
            old = np.arange(self.quiet.size) - self.quiet.size - moved + size
            np.add.at(quiet, np.maximum(old, 0), self.quiet)
        return type(self)(self.loud[first:], self.livetime, floor, quiet)

    @property
    def size(self) -> int:
        """Background events, kept or counted."""
        return self.loud.size + int(self.quiet.sum())

    @property
    def loudest(self) -> float | None:
        """Largest statistic; of one that is only counted, its bin's lower edge."""
        if self.loud.size:
            return float(self.loud[-1])
        return self.at_rank(1) if self.size else None

    def count(self, statistic: float) -> int:
        """Background events with a statistic of at least `statistic`.

        Below the floor all of the statistic's bin are counted.
        """
        return int(self.counts(statistic))

    def counts(self, statistics: ArrayLike) -> NDArray[np.int64]:
        """The same of each of several statistics."""
        values = np.asarray(statistics, dtype=np.float64)
        counts = self.loud.size - np.searchsorted(self.loud, values)
        # Events in the bins from each one on, and none from the end on.
        above = np.append(np.cumsum(self.quiet[::-1])[::-1], 0)
        places = np.minimum(self._bins(values), self.quiet.size)
        result: NDArray[np.int64] = counts + above[places]
        return result

    @property
    def lowest_far_per_year(self) -> float | None:
        """Rate of an event louder than all; none without livetime."""
        return self._rate(0) if self.livetime else None

    def rates(self, counts: ArrayLike) -> NDArray[np.float64]:
        """False-alarm rate of statistics with such counts, per Julian year."""
        return (np.asarray(counts) + 1) / self.livetime * JULIAN_YEAR

    def _bins(self, statistics: NDArray[np.float64]) -> NDArray[np.int64]:
        """Bin of each statistic; at least the number of bins from the floor on."""
        if not self.quiet.size:
            return np.zeros(statistics.shape, np.int64)
        below = _bin_number(statistics) - self.floor * BINS_PER_UNIT
        bins = np.clip(below, -MOST_BINS, 0).astype(np.int64) + self.quiet.size
        return np.maximum(bins, 0)

    def _uncertain(self, statistic: float) -> int:
        if statistic >= self.floor or not self.quiet.size:
            return 0
        place = int(self._bins(np.array(statistic)))
        # An edge is exact: all of its bin are at least as loud. But the first bin has
        # no lower edge.
        edge = self._edge(place)
        return 0 if place and statistic == edge else int(self.quiet[place])

    def _edge(self, place: int) -> float:
        """Lower edge of a bin."""
        return self.floor - (self.quiet.size - place) / BINS_PER_UNIT

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
        allowed = int(min(expected + 1, self.size))
        # The quotient may round across a whole number; far() has the last word.
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
        # This many events may be as loud, so the next one must fall short of it.
        if allowed < self.loud.size:
            return math.nextafter(float(self.loud[-1 - allowed]), math.inf)
        above = self.loud.size + np.cumsum(self.quiet[::-1])
        bins = int(np.searchsorted(above, allowed, side="right"))
        return self._edge(self.quiet.size - bins)

    def ifar_curve(self, max_points: int = 300) -> list[IfarPoint]:
        """IFAR at the statistics of background events, ascending.

        The last point lies just above the loudest event and is saturated. Of more
        than `max_points` events, the loudest third is kept and the rest thinned
        evenly in the logarithm of the rank. Below the floor, points lie at edges of
        bins.
        """
        counts = np.arange(1, min(self.size, max_points) + 1)
        if self.size > max_points:
            ranks = np.geomspace(max_points // 3, self.size, 2 * max_points // 3)
            kept = [np.arange(1, max_points // 3 + 1), ranks.round().astype(int)]
            counts = np.unique(np.concatenate(kept))
        values = sorted({self.at_rank(int(count)) for count in counts})
        if not values:
            return []
        above = math.nextafter(values[-1], math.inf) if self.loud.size else self.floor
        return [self._point(value) for value in (*values, above)]

    def at_rank(self, rank: int) -> float:
        """Statistic of the event that is the `rank` loudest, from 1, or its bin's."""
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
    """The value, or none where it is infinite, which JSON cannot say."""
    return value if math.isfinite(value) else None


def _bin_number(statistic: ArrayLike) -> NDArray[np.float64]:
    """Number of the bin of a statistic; exact, since the scale is a power of two."""
    numbers: NDArray[np.float64] = np.floor(np.multiply(statistic, BINS_PER_UNIT))
    return numbers


def false_alarm_probability(far_per_year: float, observing_time: float) -> float:
    """Probability that noise alone gives one event or more at this rate.

    1 - exp(-FAR T): false alarms are a Poisson process (Usman et al. 2016,
    arXiv:1508.02357, eq. 13).

    Args:
        far_per_year: False-alarm rate, per Julian year.
        observing_time: Time that was searched, s.
    """
    return -math.expm1(-far_per_year * observing_time / JULIAN_YEAR)


def significance(probability: float) -> float:
    """A one-sided tail probability in standard deviations of a normal distribution."""
    return -float(ndtri(probability))


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

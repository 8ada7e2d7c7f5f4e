"""p_astro: a candidate's probability of being a merger, for an assumed merger rate."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chirpwatch.background import Background, FalseAlarmRate
from chirpwatch.errors import StatisticsError

NEIGHBOURS = 30
"""Number of injections nearest in statistic from which the signal density follows."""

TAIL = 300
"""Number of loudest background events from which the tail's slope follows."""


@dataclass(frozen=True)
class AstrophysicalProbability:
    """p_astro of a candidate, and the rate densities that it is computed from.

    Attributes:
        p_astro: Probability that the candidate is a merger.
        signal_density: Expected mergers per year and unit of the statistic, at the
            candidate's statistic.
        background_density: Expected false alarms per year and unit of the statistic,
            at the candidate's statistic.
        saturated: No background event is as loud. The background density is then an
            upper limit, and ``p_astro`` a lower limit.
    """

    p_astro: float
    signal_density: float
    background_density: float
    saturated: bool


def astrophysical_probability(
    statistic: float,
    background: Background,
    injection_statistics: ArrayLike,
    volumes: ArrayLike,
    rate_density: float,
) -> AstrophysicalProbability:
    """Compute p_astro for a candidate's detection statistic.

    p_astro = s / (s + b), where s and b are the rate densities of signals and
    background at the statistic (Farr et al. 2015, arXiv:1302.5341, with both rates
    fixed). The background density is the false-alarm rate, (n + 1) / T, times the local
    slope of its logarithm; where fewer than ``TAIL`` events are as loud, it is the
    slope of the loudest ``TAIL`` events. The signal density is the volume of the
    ``NEIGHBOURS`` injections nearest in statistic, divided by the range that they span.

    Args:
        statistic: The candidate's statistic.
        background: Background from the candidate's model.
        injection_statistics: Statistic of each found injection, [found].
        volumes: Comoving volume that each found injection stands for, including the
            time-dilation factor, Mpc^3, [found]; see ``volume_per_injection``.
        rate_density: Merger rate density of the injected population, per Gpc^3 and
            year.

    Raises:
        StatisticsError: There are too few found injections or background events, or
            the rate density is not above 0.
    """
    if not (math.isfinite(rate_density) and rate_density > 0):
        raise StatisticsError(
            "p_astro: expected a merger rate density above 0 per Gpc^3 and year, found "
            f"{rate_density}"
        )
    injected = np.asarray(injection_statistics, dtype=np.float64)
    weights = np.asarray(volumes, dtype=np.float64)
    if injected.size < NEIGHBOURS:
        raise StatisticsError(
            f"p_astro: expected at least {NEIGHBOURS} injections with events, found "
            f"{injected.size}; search with more injections"
        )
    rate = background.far(statistic)
    background_density = _background_density(statistic, background, rate)
    # Rates are per Gpc^3, volumes in Mpc^3.
    signal_density = rate_density * _volume_density(statistic, injected, weights) / 1e9
    return AstrophysicalProbability(
        p_astro=signal_density / (signal_density + background_density),
        signal_density=signal_density,
        background_density=background_density,
        saturated=rate.saturated,
    )


def _background_density(
    statistic: float, background: Background, rate: FalseAlarmRate
) -> float:
    """False alarms per year and unit of the statistic."""
    louder = min(rate.count // 2, background.loud.size)
    if rate.count < TAIL or not louder:
        return rate.far_per_year * _tail_slope(background)
    # The slope is taken from here to the statistic that half as many events reach, or
    # to the floor, below which single statistics are not stored.
    width = float(background.loud[-louder]) - statistic
    if not width > 0:
        return rate.far_per_year * _tail_slope(background)
    return rate.far_per_year * math.log(rate.count / louder) / width


def _tail_slope(background: Background) -> float:
    """Slope of the logarithm of the rate in the loud tail, per unit of the statistic.

    It is the maximum-likelihood rate of an exponential distribution above the tail's
    quietest event.
    """
    loud = background.loud[-TAIL:]
    excess = float(np.sum(loud[1:] - loud[0])) if loud.size else 0.0
    if loud.size < 3 or not excess > 0:
        raise StatisticsError(
            "p_astro: expected at least three background events with several different "
            f"statistics, found {loud.size} events; analyse more timeslides"
        )
    return (loud.size - 1) / excess


def _volume_density(
    statistic: float, injected: NDArray[np.float64], volumes: NDArray[np.float64]
) -> float:
    """Sensitive volume per unit of the statistic, Mpc^3."""
    distance = np.abs(injected - statistic)
    nearest = np.argpartition(distance, NEIGHBOURS - 1)[:NEIGHBOURS]
    # Beyond the loudest or quietest injection, neighbours lie on one side only.
    low = max(statistic - float(distance[nearest].max()), float(injected.min()))
    high = min(statistic + float(distance[nearest].max()), float(injected.max()))
    width = max(high, statistic) - min(low, statistic)
    return float(volumes[nearest].sum()) / width if width else math.inf

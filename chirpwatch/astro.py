"""Probability that a candidate is a merger, where the rate of mergers is given."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chirpwatch.background import Background, FalseAlarmRate
from chirpwatch.errors import StatisticsError

NEIGHBOURS = 30
"""Injections about a statistic that the density of signals there is taken from."""

TAIL = 300
"""Loudest background events that the slope of the tail is taken from."""


@dataclass(frozen=True)
class AstrophysicalOdds:
    """How a candidate came to be, by two rates.

    Attributes:
        p_astro: Probability that it is a merger.
        signal_density: Mergers a year for each unit of the statistic, there.
        noise_density: False alarms a year for each unit of the statistic, there.
        limited: The background does not reach this statistic, so that the noise is an
            upper limit, and ``p_astro`` a lower one.
    """

    p_astro: float
    signal_density: float
    noise_density: float
    limited: bool


def astrophysical_odds(
    statistic: float,
    background: Background,
    found: ArrayLike,
    volumes: ArrayLike,
    rate_density: float,
) -> AstrophysicalOdds:
    """Weigh mergers against noise at one statistic.

    p_astro = s / (s + n) for the densities s and n of signals and noise in the
    statistic (Farr et al. 2015, arXiv:1302.5341, for rates that are known). The noise's
    is the false-alarm rate, (n + 1) / T, times the slope of its logarithm there, or
    that of the loudest ``TAIL`` events where there are fewer. The signals' is the
    volume of the ``NEIGHBOURS`` injections nearest to the statistic over what they
    span.

    Args:
        statistic: Of the candidate.
        background: Background of the same model.
        found: Statistic of each injection that has an event, [found].
        volumes: Comoving volume, less the dilation of time, that each stands for,
            Mpc^3, [found].
        rate_density: Mergers of the injections' population, per Gpc^3 and year.

    Raises:
        StatisticsError: Too few injections or background events, or no rate.
    """
    if not (math.isfinite(rate_density) and rate_density > 0):
        raise StatisticsError(
            f"expected a rate above 0 per Gpc^3 and year, found {rate_density}"
        )
    statistics = np.asarray(found, dtype=np.float64)
    weights = np.asarray(volumes, dtype=np.float64)
    if statistics.size < NEIGHBOURS:
        raise StatisticsError(
            f"p_astro: expected {NEIGHBOURS} injections with events or more, found "
            f"{statistics.size}"
        )
    rate = background.far(statistic)
    noise = _noise_density(statistic, background, rate)
    signals = rate_density * _density(statistic, statistics, weights) / 1e9
    return AstrophysicalOdds(
        p_astro=signals / (signals + noise),
        signal_density=signals,
        noise_density=noise,
        limited=rate.saturated,
    )


def _noise_density(
    statistic: float, background: Background, rate: FalseAlarmRate
) -> float:
    """False alarms a year for each unit of the statistic."""
    louder = min(rate.count // 2, background.loud.size)
    if rate.count < TAIL or not louder:
        return rate.far_per_year * _slope(background)
    # From here to where half as many are louder, or to where all are known.
    width = float(background.loud[-louder]) - statistic
    if not width > 0:
        return rate.far_per_year * _slope(background)
    return rate.far_per_year * math.log(rate.count / louder) / width


def _slope(background: Background) -> float:
    """Slope of the logarithm of the rate in the loud tail, for each unit.

    The maximum-likelihood rate of an exponential distribution above the quietest event
    of the tail.
    """
    loud = background.loud[-TAIL:]
    excess = float(np.sum(loud[1:] - loud[0])) if loud.size else 0.0
    if loud.size < 3 or not excess > 0:
        raise StatisticsError(
            f"p_astro: expected several different loud background events, found "
            f"{loud.size}"
        )
    return (loud.size - 1) / excess


def _density(
    statistic: float, found: NDArray[np.float64], volumes: NDArray[np.float64]
) -> float:
    """Volume for each unit of the statistic, Mpc^3."""
    distance = np.abs(found - statistic)
    nearest = np.argpartition(distance, NEIGHBOURS - 1)[:NEIGHBOURS]
    # Beyond the loudest injection there is one side only.
    low = max(statistic - float(distance[nearest].max()), float(found.min()))
    high = min(statistic + float(distance[nearest].max()), float(found.max()))
    width = max(high, statistic) - min(low, statistic)
    return float(volumes[nearest].sum()) / width if width else math.inf

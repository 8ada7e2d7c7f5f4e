"""Matched-filter limits on the efficiency, in stationary Gaussian noise.

There are three limits, at the same false-positive rates a window as the network's:

- *known signal*: all signal parameters are known. The filter output is a unit Gaussian
  with the mean SNR if there is a signal, else 0. By the Neyman-Pearson lemma the
  efficiency is ``Φ(SNR - Φ⁻¹(1 - rate))``.
- *matched filter*: masses and spins are known. The statistic is the sum of the
  detectors' ``|z|²``, maximised over the time within the window, over delays up to the
  light travel time, and over each detector's phase and amplitude (Allen et al.,
  arXiv:gr-qc/0509116, sections III and IV, for one detector; Pai et al.,
  arXiv:gr-qc/0009078, for the sum over several, here with free amplitudes).
- *bank*: masses and spins are unknown as well. The statistic is the logarithm of the
  likelihood, averaged over the templates of a bank (weighted by their share of a
  population) and over the time within the window. The likelihood is ``exp(|z|²/2)`` of
  the first detector, times its mean over the light travel time for each further
  detector. A search for that population should be compared with this limit.

The filters know the noise's PSD and see complete signals. The network estimates the PSD
from at most 64 s of strain, and sees only the part of a signal that is in its window.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from chirpwatch.geometry import Geometry
from chirpwatch.train.evaluation.bank_filter import BankFilters
from chirpwatch.train.evaluation.deployment import MIN_EVENTS
from chirpwatch.train.evaluation.matched_filter import MatchedFilter
from chirpwatch.train.networks.bank import shipped_bank

SNRS, BANK_SNRS = np.arange(3.0, 20.5, 0.5), np.arange(3.0, 15.0)
"""Network SNRs of the matched filter's curves, and of the bank's."""

TAIL_SHARE = 0.005
"""Loudest share of the noise windows, to which the tail is fitted."""


def known_signal(snr: NDArray[Any], rate: float) -> NDArray[Any]:
    """Efficiency of the Neyman-Pearson test for a completely known signal.

    Args:
        snr: Network SNR, [n].
        rate: False-positive rate a window.

    Returns:
        Efficiency, [n].
    """
    share: NDArray[Any] = stats.norm.cdf(snr - stats.norm.isf(rate))
    return share


@dataclass(frozen=True)
class StatisticThreshold:
    """Threshold on a matched filter's or bank's statistic, at a false-positive rate.

    Attributes:
        value: The statistic.
        fitted: Whether it is extrapolated by a fit to the tail, since fewer than
            ``MIN_EVENTS`` noise windows are as loud.
    """

    value: float
    fitted: bool


def tail_threshold(statistics: NDArray[Any], rate: float) -> StatisticThreshold:
    """Threshold at a false-positive rate, by counting or by fitting the tail.

    Where fewer than ``MIN_EVENTS`` noise windows exceed the threshold, the tail is
    fitted by an exponential. The density of the squared SNR in noise is ``exp(-x / 2)``
    times powers of x, which is close to exponential over the few units between two
    rates. The fitted scale is the mean excess over the start of the tail, the
    maximum-likelihood estimate.

    Args:
        statistics: Statistics of noise windows, [n].
        rate: False-positive rate a window.
    """
    loudest = np.sort(statistics)[::-1]
    above = rate * len(loudest)
    if above >= MIN_EVENTS:
        return StatisticThreshold(float(loudest[int(above)]), False)
    count = max(2, int(TAIL_SHARE * len(loudest)))
    scale = float(np.mean(loudest[:count] - loudest[count]))
    value = float(loudest[count] + scale * math.log(count / above))
    return StatisticThreshold(value, True)


def optimal_curves(
    geometry: Geometry,
    masses: tuple[tuple[float, float], ...],
    rates: tuple[float, ...],
    *,
    run: str,
    window_length: float,
    seed: int,
    noise_windows: int,
    signals: int,
    bank_windows: int,
    bank_signals: int,
) -> dict[str, Any]:
    """Efficiencies of the three limits, for each pair of masses.

    Args:
        geometry: Detectors, sample rate and highpass.
        masses: Pairs of heavier and lighter mass, detector frame, solar masses.
        rates: False-positive rates a window.
        run: Observing run of the noise curves.
        window_length: Range of merger times within a window, s.
        seed: Seed of noise, sky positions and orientations.
        noise_windows: Noise windows for each pair's matched filter.
        signals: Mergers for each pair's matched filter.
        bank_windows: Noise windows for the bank that comes with the project; 0 leaves
            the bank out.
        bank_signals: Mergers of each pair for the bank.

    Returns:
        JSON-ready: ``snr``, [k]; ``known``, the known signal's efficiency at each SNR,
        [k], by rate; ``matched``, for each pair ``mass_1``, ``mass_2``, ``found`` (the
        efficiency at each SNR, [k], by rate) and ``fitted`` (the rates whose threshold
        comes from a fit to the tail); ``bank``, the same for the bank, at ``bank_snr``;
        ``window_length``, s; and the numbers of windows and mergers.
    """
    matched, recovered = [], []
    for index, pair in enumerate(masses):
        template = MatchedFilter(geometry, pair, run, window_length, seed + index)
        noise = template.noise_statistics(noise_windows)
        statistics = template.signal_statistics(signals, SNRS)
        matched.append(_shares(pair, rates, noise, statistics))
    if bank_windows:
        bank = BankFilters(geometry, shipped_bank(), run, window_length, seed)
        noise = bank.noise_statistics(bank_windows)
        for pair in masses:
            statistics = bank.signal_statistics(pair, bank_signals, BANK_SNRS)
            recovered.append(_shares(pair, rates, noise, statistics))
    return {
        "snr": SNRS.tolist(),
        "known": {str(rate): known_signal(SNRS, rate).tolist() for rate in rates},
        "matched": matched,
        "noise_windows": noise_windows,
        "signals": signals,
        "window_length": window_length,
        "bank_snr": BANK_SNRS.tolist(),
        "bank": recovered,
        "bank_noise_windows": bank_windows,
        "bank_signals": bank_signals,
    }


def _shares(
    pair: tuple[float, float],
    rates: tuple[float, ...],
    noise: NDArray[Any],
    statistics: NDArray[Any],
) -> dict[str, Any]:
    """Efficiency at each SNR and rate for one pair of masses, JSON-ready.

    Args:
        pair: Heavier and lighter mass, solar masses.
        rates: False-positive rates a window.
        noise: Statistics of noise windows, [n].
        statistics: Statistics of windows with a merger, [k, m].
    """
    limits = {rate: tail_threshold(noise, rate) for rate in rates}
    return {
        "mass_1": pair[0],
        "mass_2": pair[1],
        "found": {
            str(rate): (statistics > limit.value).mean(1).tolist()
            for rate, limit in limits.items()
        },
        "fitted": [str(rate) for rate, limit in limits.items() if limit.fitted],
    }

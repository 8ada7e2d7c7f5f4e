"""The best that can be done: matched filters in stationary Gaussian noise.

Three limits, for the same false-positive rate a window as the network's:

- *known signal*: everything about the signal is known but whether it is there. Its
  filter's output is a unit Gaussian, moved by the SNR if the signal is there (Neyman
  and Pearson's test), so that ``P(found) = Φ(SNR - Φ⁻¹(1 - rate))``;
- *matched filter*: masses and spins are known; the time within the window, each
  detector's phase and amplitude are not. The largest sum of the detectors' ``|z|²``,
  at times at which light can have travelled from the first detector to each other one,
  is compared with a threshold from noise (Allen et al., arXiv:gr-qc/0509116, sections
  III and IV, for one detector; the sum of squares for several is that of Pai et al.,
  arXiv:gr-qc/0009078, with the detectors' amplitudes free);
- *bank*: masses and spins are unknown as well. All templates of a bank add their
  likelihoods, each weighted by its share of a population: the logarithm of the sum over
  templates, and of the mean over times within the window, of ``exp(|z|²/2)`` of the
  first detector times its mean within the light's travel in each other one. This is
  the limit to compare a search for that population with.

The noise's spectrum is known to these filters, which see the whole signal; the network
estimates the one from up to 64 s, and sees no more of the other than its window holds.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from chirpwatch.geometry import Geometry
from chirpwatch.train.evaluation.bank_filter import BankFilters
from chirpwatch.train.evaluation.deployment import LEAST_EVENTS
from chirpwatch.train.evaluation.matched_filter import MatchedFilter
from chirpwatch.train.networks.bank import shipped_bank

SNRS, BANK_SNRS = np.arange(3.0, 20.5, 0.5), np.arange(3.0, 15.0)
"""Network SNRs of the single template's curves, and of the bank's."""

TAIL_SHARE = 0.005
"""Share of the loudest noise windows that the tail is fitted to."""


def known_signal(snr: NDArray[Any], rate: float) -> NDArray[Any]:
    """Share found where all but the signal's presence is known.

    Args:
        snr: Network SNR, [n].
        rate: False-positive rate a window.

    Returns:
        Share of signals found, [n].
    """
    share: NDArray[Any] = stats.norm.cdf(snr - stats.norm.isf(rate))
    return share


@dataclass(frozen=True)
class Threshold:
    """Statistic that a false-positive rate belongs to.

    Attributes:
        value: Of the detectors' ``|z|²``, added.
        fitted: Whether it comes from the fit to the tail: fewer than
            ``LEAST_EVENTS`` noise windows are as loud.
    """

    value: float
    fitted: bool


def tail_threshold(statistics: NDArray[Any], rate: float) -> Threshold:
    """Threshold at a rate, by counting, or by an exponential tail where too few are.

    The squared SNR of noise falls as ``exp(-x / 2)`` times powers of x, so that its
    tail is exponential over the few units between a rate and the next; the scale is
    the mean excess over the fitted part, the most likely one.

    Args:
        statistics: Squared SNR of noise windows, [n].
        rate: False-positive rate a window.

    Returns:
        The threshold.
    """
    loudest = np.sort(statistics)[::-1]
    above = rate * len(loudest)
    if above >= LEAST_EVENTS:
        return Threshold(float(loudest[int(above)]), False)
    count = max(2, int(TAIL_SHARE * len(loudest)))
    scale = float(np.mean(loudest[:count] - loudest[count]))
    return Threshold(float(loudest[count] + scale * math.log(count / above)), True)


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
    """Shares that the limits find, for each pair of masses.

    Args:
        geometry: The analysis.
        masses: Heavier and lighter, detector frame, solar masses.
        rates: False-positive rates a window.
        run: Observing run whose noise curves are used.
        window_length: Times that the merger may have within a window, s.
        seed: Seed of noise and orientations.
        noise_windows: Noise windows of each pair.
        signals: Mergers of each pair.
        bank_windows: Noise windows of the bank that comes with the project; 0 leaves
            the bank out.
        bank_signals: Its mergers of each pair.

    Returns:
        JSON-ready figures: ``snr`` [k], ``known`` (for each rate a list [k]), and
        ``matched``: for each pair ``mass_1``, ``mass_2``, ``found`` (for each rate a
        list [k]), ``fitted`` (the rates whose threshold comes from the fitted tail);
        and ``bank``, the same at ``bank_snr``.
    """
    matched, found = [], []
    for index, pair in enumerate(masses):
        optimum = MatchedFilter(geometry, pair, run, window_length, seed + index)
        noise = optimum.noise_statistics(noise_windows)
        statistics = optimum.signal_statistics(signals, SNRS)
        matched.append(_shares(pair, rates, noise, statistics))
    if bank_windows:
        bank = BankFilters(geometry, shipped_bank(), run, window_length, seed)
        noise = bank.noise_statistics(bank_windows)
        for pair in masses:
            statistics = bank.signal_statistics(pair, bank_signals, BANK_SNRS)
            found.append(_shares(pair, rates, noise, statistics))
    return {
        "snr": SNRS.tolist(),
        "known": {str(rate): known_signal(SNRS, rate).tolist() for rate in rates},
        "matched": matched,
        "noise_windows": noise_windows,
        "signals": signals,
        "window_length": window_length,
        "bank_snr": BANK_SNRS.tolist(),
        "bank": found,
        "bank_noise_windows": bank_windows,
        "bank_signals": bank_signals,
    }


def _shares(
    pair: tuple[float, float],
    rates: tuple[float, ...],
    noise: NDArray[Any],
    statistics: NDArray[Any],
) -> dict[str, Any]:
    """Shares of mergers, [k, n], that exceed the noise's thresholds, JSON-ready."""
    limits = {rate: tail_threshold(noise, rate) for rate in rates}
    return {
        "mass_1": pair[0],
        "mass_2": pair[1],
        "found": {
            str(rate): (statistics > limit.value).mean(1).tolist()
            for rate, limit in limits.items()
        },
        "fitted": [str(rate) for rate, one in limits.items() if one.fitted],
    }

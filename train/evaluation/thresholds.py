"""Thresholds at given false-positive rates, and the efficiency at them.

Overlapping windows are not independent, since one fluctuation is loud in several. A
threshold is therefore given only if at least ``MIN_EVENTS`` independent clusters of
windows exceed it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chirpwatch.train.evaluation.deployment import MIN_EVENTS
from chirpwatch.train.evaluation.effort import SNRS, Effort
from chirpwatch.volume import MASS_PAIRS

MASSES = (*MASS_PAIRS, (15.0, 8.5), (150.0, 150.0))
"""Reference mergers: heavier and lighter mass, detector frame, solar masses."""

RATES = (1e-3, 1e-4, 1e-5, 1e-6)
"""False-positive rates a window."""


@dataclass(frozen=True)
class Threshold:
    """Score threshold at a false-positive rate.

    Attributes:
        value: Smallest score that at most this share of the noise windows exceeds.
        above: Effective number of independent clusters above the threshold,
            (Σw)² / Σw² (Kish).
    """

    value: float
    above: float


class FalsePositives:
    """False-positive rate as a function of the threshold, from noise windows.

    Windows with glitches are weighted to make up a given share of all windows. Windows
    that overlap form one cluster, and so do windows with the same glitch.

    Args:
        noise: Scores of windows without a glitch, [rows, strides]: the windows of a
            row are successive strides. [n] if no two windows overlap.
        glitch: Scores of windows with a glitch, [m].
        share: Share of windows with a glitch, 0 to 1.
        kernel_strides: Strides between two windows that no longer overlap.
        shapes: Index of each window's glitch, [m]; all are different if None.
    """

    def __init__(
        self,
        noise: Tensor,
        glitch: Tensor,
        share: float,
        kernel_strides: int = 1,
        shapes: Tensor | None = None,
    ) -> None:
        self._noise = noise[:, None] if noise.ndim == 1 else noise
        self._glitch, self._share = glitch, share
        self._shapes = torch.arange(len(glitch)) if shapes is None else shapes
        self._kernel_strides = kernel_strides
        flat = self._noise.flatten()
        scores = torch.cat([flat, glitch]) if share else flat
        weights = torch.full((len(scores),), (1 - share) / len(flat)).double()
        if share:
            weights[len(flat) :] = share / len(glitch)
        self._scores, order = scores.sort(descending=True)
        self._shares = weights[order].cumsum(0)

    def threshold(self, rate: float) -> Threshold:
        """Threshold at a false-positive rate."""
        first = int(torch.searchsorted(self._shares, rate, right=True))
        limit = float(self._scores[min(first, len(self._scores) - 1)])
        return Threshold(limit, self._clusters_above(limit))

    def thresholds(self, rates: Sequence[float]) -> dict[str, Threshold]:
        """Thresholds by rate; a rate with too few clusters above it is left out."""
        limits = {str(rate): self.threshold(rate) for rate in rates}
        return {
            rate: limit
            for rate, limit in limits.items()
            if round(limit.above, 6) >= MIN_EVENTS
        }

    def moved(self, rate: float, sign: int) -> float:
        """Threshold at a rate, moved by its 1 σ Poisson error, √n of n clusters.

        Args:
            rate: False-positive rate whose threshold at least one cluster exceeds.
            sign: 1 for the lower threshold, with more clusters above it; -1 for the
                higher.
        """
        above = self.threshold(rate).above
        return self.threshold(rate * (1 + sign / math.sqrt(above))).value

    def rate(self, limit: float) -> float:
        """False-positive rate at the threshold ``limit``."""
        # Negated, since searchsorted needs ascending order.
        above = int(torch.searchsorted(-self._scores, -limit))
        return float(self._shares[above - 1]) if above else 0.0

    def _clusters_above(self, limit: float) -> float:
        """Effective number of clusters of noise and glitch windows above a score."""
        row, stride = torch.nonzero(self._noise > limit, as_tuple=True)
        first = torch.ones(len(row), dtype=torch.bool)
        near = stride.diff() < self._kernel_strides
        first[1:] = (row.diff() > 0) | ~near
        noise_share = (1 - self._share) * len(row) / self._noise.numel()
        parts = [(noise_share, int(first.sum()))]
        if self._share:
            loud = self._glitch > limit
            glitch_share = self._share * int(loud.sum()) / len(loud)
            parts.append((glitch_share, len(self._shapes[loud].unique())))
        # The two kinds of windows are independent, so that their variances add.
        variance = sum(share**2 / count for share, count in parts if count)
        return sum(share for share, _ in parts) ** 2 / variance if variance else 0.0


@dataclass(frozen=True)
class WindowScores:
    """A network's scores of noise windows and of the reference mergers.

    Attributes:
        kinds: False positives by kind of noise: without (``gaussian``) and with
            glitches (``glitches``).
        signals: Scores of windows with a merger, [n], by index in ``MASSES``, network
            SNR and kind of noise.
        noise_windows: Number of noise windows without a glitch.
    """

    kinds: dict[str, FalsePositives]
    signals: dict[tuple[int, float, str], Tensor]
    noise_windows: int

    def found(
        self, index: int, snr: float, kind: str, limits: Mapping[str, float]
    ) -> dict[str, float]:
        """Efficiency at each threshold, for one pair of masses, SNR and kind."""
        scores = self.signals[index, snr, kind]
        return {
            rate: float((scores > limit).double().mean())
            for rate, limit in limits.items()
        }


def shares_found(scores: WindowScores, effort: Effort) -> dict[str, Any]:
    """Thresholds and efficiencies by kind of noise, rate, masses and SNR, JSON-ready.

    Returns:
        ``noise_windows``, ``thresholds``, ``clusters``, ``found`` and ``efficiency``,
        see ``validation.validate``.
    """
    thresholds: dict[str, dict[str, float]] = {}
    clusters: dict[str, dict[str, float]] = {}
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in scores.kinds}
    curves: dict[str, list[dict[str, Any]]] = {kind: [] for kind in scores.kinds}
    for kind, false in scores.kinds.items():
        limits = false.thresholds(RATES)
        thresholds[kind] = {rate: limit.value for rate, limit in limits.items()}
        clusters[kind] = {rate: round(x.above, 1) for rate, x in limits.items()}
        limits_by_name = {
            "found": thresholds[kind],
            "found_low": {rate: false.moved(float(rate), -1) for rate in limits},
            "found_high": {rate: false.moved(float(rate), 1) for rate in limits},
        }
        for index, (mass_1, mass_2) in enumerate(MASSES):
            for snr in effort.snrs:
                entry = {
                    "mass_1": mass_1,
                    "mass_2": mass_2,
                    "snr": snr,
                    **{
                        name: scores.found(index, snr, kind, values)
                        for name, values in limits_by_name.items()
                    },
                }
                curves[kind].append(entry)
                if snr in SNRS:
                    found[kind].append(entry)
    return {
        "noise_windows": scores.noise_windows,
        "thresholds": thresholds,
        "clusters": clusters,
        "found": found,
        "efficiency": curves,
    }


def roc_curves(scores: WindowScores, effort: Effort) -> dict[str, Any]:
    """ROC curves by kind of noise and SNR, averaged over the reference masses.

    Returns:
        JSON-ready: for each kind of noise ``rates`` (false-positive rates) and
        ``found`` (for each SNR the efficiency at each rate).
    """
    rates = np.logspace(-7, 0, 57)
    result: dict[str, Any] = {}
    for kind, false in scores.kinds.items():
        limits = {
            rate: limit.value
            for rate, limit in false.thresholds(
                [float(f"{rate:.4g}") for rate in rates]
            ).items()
        }
        found = {}
        for snr in sorted(set(SNRS) & set(effort.snrs)):
            shares = [
                scores.found(index, snr, kind, limits) for index in range(len(MASSES))
            ]
            found[str(snr)] = [
                float(np.mean([x[rate] for x in shares])) for rate in limits
            ]
        result[kind] = {"rates": [float(rate) for rate in limits], "found": found}
    return result

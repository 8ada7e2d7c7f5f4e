"""Thresholds at false-positive rates, and the share of signals above them.

No threshold is given that fewer than ``LEAST_EVENTS`` clusters of windows exceed:
windows of a dense evaluation overlap, and one fluctuation is loud in several.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chirpwatch.train.evaluation.deployment import LEAST_EVENTS
from chirpwatch.train.evaluation.effort import SNRS, Effort
from chirpwatch.volume import MASS_PAIRS

MASSES = (*MASS_PAIRS, (15.0, 8.5), (150.0, 150.0))
"""Heavier and lighter, solar masses, here in the detector frame."""

RATES = (1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True)
class Threshold:
    """Score that a false-positive rate belongs to.

    Attributes:
        value: The smallest score that no more than this share of the windows exceed.
        above: Effective number of independent clusters of windows above it, (Σw)² / Σw²
            (Kish).
    """

    value: float
    above: float


class FalsePositives:
    """Scores of noise, a share of whose windows has a glitch.

    A rate is a share of windows. How well it is known depends on how many clusters of
    windows exceed its threshold: those of a row that begin less than a kernel after the
    one before are one.

    Args:
        noise: Scores of windows without a glitch, in time within a row, [rows,
            strides]; rows of one window if [n].
        glitch: Scores of windows with one, [m].
        shapes: Which glitch each of them has, [m]: windows of the same one are one
            cluster. Each has its own if None.
        share: Share of the windows that have a glitch.
        kernel_strides: Strides from a window to the next that it shares no strain with.
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
        """Score that a false-positive rate belongs to."""
        first = int(torch.searchsorted(self._shares, rate, right=True))
        limit = float(self._scores[min(first, len(self._scores) - 1)])
        return Threshold(limit, self._clusters_above(limit))

    def thresholds(self, rates: Sequence[float]) -> dict[str, Threshold]:
        """Thresholds at those of the rates that enough clusters exceed."""
        limits = {str(rate): self.threshold(rate) for rate in rates}
        return {
            rate: limit
            for rate, limit in limits.items()
            if round(limit.above, 6) >= LEAST_EVENTS
        }

    def moved(self, rate: float, sign: int) -> float:
        """Threshold if n ± √n clusters were above it where n are.

        Args:
            rate: One that clusters exceed the threshold of.
            sign: 1 for more of them, that is, a lower threshold; or -1.
        """
        above = self.threshold(rate).above
        return self.threshold(rate * (1 + sign / math.sqrt(above))).value

    def rate(self, limit: float) -> float:
        """Share of the windows whose score exceeds ``limit``."""
        # Ascending, as searchsorted has it.
        above = int(torch.searchsorted(-self._scores, -limit))
        return float(self._shares[above - 1]) if above else 0.0

    def _clusters_above(self, limit: float) -> float:
        """Clusters of windows above a score, those of noise and glitches weighed."""
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
        # The variances of the two parts' shares add up.
        variance = sum(share**2 / count for share, count in parts if count)
        return sum(share for share, _ in parts) ** 2 / variance if variance else 0.0


@dataclass(frozen=True)
class Scores:
    """A network's scores of noise and of mergers of the reference masses.

    Attributes:
        kinds: False positives of noise alone and of noise with glitches.
        signals: Scores by masses' index, SNR and kind, [n].
        noise_windows: Noise windows without a glitch.
    """

    kinds: dict[str, FalsePositives]
    signals: dict[tuple[int, float, str], Tensor]
    noise_windows: int

    def found(
        self, index: int, snr: float, kind: str, limits: Mapping[str, float]
    ) -> dict[str, float]:
        """Share of signals above each of the thresholds."""
        scores = self.signals[index, snr, kind]
        return {
            rate: float((scores > limit).double().mean())
            for rate, limit in limits.items()
        }


def shares_found(scores: Scores, effort: Effort) -> dict[str, Any]:
    """Thresholds and shares of signals found, JSON-ready."""
    thresholds: dict[str, dict[str, float]] = {}
    clusters: dict[str, dict[str, float]] = {}
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in scores.kinds}
    curves: dict[str, list[dict[str, Any]]] = {kind: [] for kind in scores.kinds}
    for kind, false in scores.kinds.items():
        limits = false.thresholds(RATES)
        thresholds[kind] = {rate: limit.value for rate, limit in limits.items()}
        clusters[kind] = {rate: round(x.above, 1) for rate, x in limits.items()}
        used = {
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
                        for name, values in used.items()
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


def roc_curves(scores: Scores, effort: Effort) -> dict[str, Any]:
    """Share found against false-positive rate, all masses together."""
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

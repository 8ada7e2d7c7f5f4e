"""Where one detector's strain to train on comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chirpwatch.train.data.noise.curves import read_curve
from chirpwatch.train.data.noise.spectra import coloured_noise


class StretchSource(Protocol):
    """Gives gap-free strain of one detector, as much as is asked for."""

    def draw(
        self, size: int, rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw a stretch.

        Args:
            size: Samples wanted.
            rng: Source of all randomness: the same state gives the same stretch.

        Returns:
            Strain, float64, [size], and the one-sided amplitude spectral density that
            defines SNR in it, 1/sqrt(Hz), at 0, 0.5, …, ``sample_rate / 2`` Hz,
            [sample_rate + 1].
        """
        ...


@dataclass(frozen=True)
class CurveVariation:
    """How far simulated noise departs from a published curve.

    A network that has seen a few curves alone knows them by heart. All of it is
    smooth in the logarithm of the frequency, from 20 Hz to half the sample rate.

    Attributes:
        spread: Standard deviation of the logarithm of the amplitude, from stretch to
            stretch.
        knots: Independent values in that range.
        lines: Largest number of narrow lines added to a stretch.
        max_line_height: Amplitude of a line over the curve, at most.
    """

    spread: float = 0.0
    knots: int = 8
    lines: int = 0
    max_line_height: float = 30.0


class SimulatedStretches:
    """Gaussian noise of published curves, varied from stretch to stretch.

    Args:
        ifo: Detector.
        runs: Observing runs whose curves the stretches take at random.
        sample_rate: Hz.
        variation: How far the noise departs from the curves.

    Raises:
        ConfigurationError: The curves do not reach half the sample rate.
    """

    def __init__(
        self,
        ifo: str,
        runs: Sequence[str],
        sample_rate: int,
        variation: CurveVariation = CurveVariation(),
    ) -> None:
        self.sample_rate, self.variation = sample_rate, variation
        self.asds = [read_curve(run, ifo, sample_rate=sample_rate) for run in runs]

    def draw(
        self, size: int, rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw a stretch, see ``StretchSource.draw``."""
        asd = self.asds[rng.integers(len(self.asds))]
        asd = vary_curve(asd, self.variation, self.sample_rate, rng)
        return coloured_noise(asd, size, self.sample_rate, rng), asd


def vary_curve(
    asd: NDArray[Any],
    variation: CurveVariation,
    sample_rate: int,
    rng: np.random.Generator,
) -> NDArray[Any]:
    """Draw a curve like the given one.

    Args:
        asd: Amplitude spectral density, evenly spaced from 0 to ``sample_rate / 2``,
            [bins].
        variation: How far it may depart.
        sample_rate: Hz.
        rng: Source of randomness.

    Returns:
        Amplitude spectral density, [bins].
    """
    if not variation.spread and not variation.lines:
        return asd
    frequencies = np.linspace(0, sample_rate / 2, len(asd))
    knots = np.geomspace(20, sample_rate / 2, variation.knots)
    values = variation.spread * rng.standard_normal(variation.knots)
    logarithm = np.interp(
        np.log(np.maximum(frequencies, knots[0])), np.log(knots), values
    )
    varied: NDArray[Any] = asd * np.exp(logarithm)
    for _ in range(rng.integers(variation.lines + 1)):
        # One or two bins wide: what a 2 s Fourier transform sees of a line.
        centre = rng.integers(np.searchsorted(frequencies, knots[0]), len(asd) - 2)
        height = np.exp(rng.uniform(0, np.log(variation.max_line_height)))
        varied[centre : centre + rng.integers(1, 3)] *= height
    return varied

"""Sources of one detector's strain for training windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chirpwatch.train.data.noise.curves import read_curve
from chirpwatch.train.data.noise.spectra import coloured_noise


class StretchSource(Protocol):
    """Draws stretches, contiguous strain of one detector, of any size."""

    def draw(
        self, size: int, rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw a stretch.

        Args:
            size: Number of samples.
            rng: Random generator; the same state gives the same stretch.

        Returns:
            Strain, float64, [size]; and the one-sided amplitude spectral density with
            which the SNR of its injections is computed, 1/sqrt(Hz), at 0, 0.5, …,
            ``sample_rate / 2`` Hz, [sample_rate + 1].
        """
        ...


@dataclass(frozen=True)
class CurveVariation:
    """Random variation of the noise curves, so that a network does not overfit them.

    The log-amplitude varies by a function that is piecewise linear in the logarithm of
    the frequency, with knots from 20 Hz to the Nyquist frequency.

    Attributes:
        spread: Standard deviation of the log-amplitude at a knot, from stretch to
            stretch.
        knots: Number of knots.
        lines: Largest number of narrow lines added to a stretch.
        max_line_height: Largest amplitude of a line relative to the curve.
    """

    spread: float = 0.0
    knots: int = 8
    lines: int = 0
    max_line_height: float = 30.0


class SimulatedStretches:
    """Draws stretches of Gaussian noise with randomly varied published curves.

    Args:
        ifo: Detector.
        runs: Observing runs; each stretch uses a random run's default curve.
        sample_rate: Hz.
        variation: Random variation of the curve, drawn for each stretch.

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
    """Draw a random variation of a noise curve.

    Args:
        asd: Amplitude spectral density, evenly spaced from 0 to ``sample_rate / 2``,
            [bins].
        variation: Its size.
        sample_rate: Hz.
        rng: Random generator.

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
        # One or two bins: the width of a line in a 2 s Fourier transform.
        centre = rng.integers(np.searchsorted(frequencies, knots[0]), len(asd) - 2)
        height = np.exp(rng.uniform(0, np.log(variation.max_line_height)))
        varied[centre : centre + rng.integers(1, 3)] *= height
    return varied

"""Noise whose spectrum changes over minutes.

White noise goes through colouring filters that are made anew every 16 s; from one to
the next the output is faded linearly. As the filters have no phase and see the same
white noise, this is noise of the amplitude response in between, and exactly
``spectra.coloured_noise`` where nothing changes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from chirpwatch.errors import ConfigurationError
from chirpwatch.train.data.noise.spectra import colouring_filter

STEP_LENGTH = 16.0


@dataclass(frozen=True)
class DriftSettings:
    """How far and how fast a spectrum drifts.

    The logarithms of level, tilt, lines and the shares of the curves are
    Ornstein-Uhlenbeck processes.

    Attributes:
        correlation_length: Time over which they forget, s.
        level: Standard deviation of the logarithm of the level of the whole spectrum.
        tilt: Same of the level at 20 Hz against that at 500 Hz.
        lines: Same of the height of each line that stands out of a curve.
        mixing: How far the mix of the curves strays from even shares: 0 keeps the even
            mix, large values switch between curves.

    Raises:
        ConfigurationError: A value is below zero, or nothing is ever forgotten.
    """

    correlation_length: float = 300.0
    level: float = 0.05
    tilt: float = 0.05
    lines: float = 0.2
    mixing: float = 1.0

    def __post_init__(self) -> None:
        spreads = (self.level, self.tilt, self.lines, self.mixing)
        if not self.correlation_length > 0 or not min(spreads) >= 0:
            raise ConfigurationError(
                "expected a drift with a correlation length above zero and spreads of "
                f"zero or more, found {self}"
            )


class DriftingSpectrum:
    """Amplitude spectral densities that follow one another, 16 s apart.

    Args:
        curves: Amplitude spectral densities on one grid, 1/sqrt(Hz), each [bins].
        sample_rate: Hz.
        settings: How the spectrum drifts.
        rng: Source of randomness.
    """

    def __init__(
        self,
        curves: Sequence[NDArray[Any]],
        sample_rate: int,
        settings: DriftSettings,
        rng: np.random.Generator,
    ) -> None:
        self.logarithms = np.log(np.stack(curves))
        self.settings, self.rng = settings, rng
        self.keep = np.exp(-STEP_LENGTH / settings.correlation_length)
        bins = self.logarithms.shape[1]
        frequencies = np.linspace(0, sample_rate / 2, bins)
        span = np.clip(np.log(np.maximum(frequencies, 1) / 100), np.log(0.2), np.log(5))
        self.slope = -span / (np.log(5) - np.log(0.2))
        # A line stands out of the median over 8 Hz; neighbouring bins move together.
        mean = self.logarithms.mean(0)
        width = round(8 / (sample_rate / 2) * (bins - 1)) | 1
        self.labels, self.num_lines = ndimage.label(
            mean - ndimage.median_filter(mean, width) > np.log(1.5)
        )
        self.state = rng.standard_normal(2 + len(curves) + self.num_lines)

    def draw(self) -> NDArray[Any]:
        """The spectrum now; the next call gives that of 16 s later.

        Returns:
            Amplitude spectral density, 1/sqrt(Hz), [bins].
        """
        settings, curves = self.settings, len(self.logarithms)
        level, tilt = self.state[:2]
        weights = np.exp(settings.mixing * self.state[2 : 2 + curves])
        logarithm = weights / weights.sum() @ self.logarithms
        logarithm += settings.level * level + settings.tilt * tilt * self.slope
        heights = np.append(0, settings.lines * self.state[2 + curves :])
        logarithm += heights[self.labels]
        fresh = self.rng.standard_normal(len(self.state))
        self.state = self.keep * self.state + np.sqrt(1 - self.keep**2) * fresh
        asd: NDArray[Any] = np.exp(logarithm)
        return asd


def drifting_noise(
    curves: Sequence[NDArray[Any]],
    size: int,
    sample_rate: int,
    rng: np.random.Generator,
    settings: DriftSettings | None = None,
) -> Iterator[NDArray[Any]]:
    """Draw noise of a spectrum that drifts, piece by piece.

    Args:
        curves: Amplitude spectral densities between which the spectrum moves, at evenly
            spaced frequencies from 0 to ``sample_rate / 2``, 1/sqrt(Hz), each [bins].
        size: Samples wanted in all.
        sample_rate: Hz.
        rng: Source of randomness.
        settings: How the spectrum drifts; the defaults if None.

    Yields:
        Strain, float64, of 16 s each; the last piece may be shorter. Memory does not
        grow with ``size``.
    """
    # Spectrum and white noise draw from streams of their own: noise with no drift is
    # that of coloured_noise with the same generator.
    spectrum = DriftingSpectrum(
        curves, sample_rate, settings or DriftSettings(), rng.spawn(1)[0]
    )
    step_size = round(STEP_LENGTH * sample_rate)
    taps = colouring_filter(spectrum.draw(), sample_rate)
    white = rng.standard_normal(len(taps) - 1)
    fade = np.arange(step_size) / step_size
    for start in range(0, size, step_size):
        wanted = min(step_size, size - start)
        white = np.append(white[-(len(taps) - 1) :], rng.standard_normal(wanted))
        following = colouring_filter(spectrum.draw(), sample_rate)
        before, after = (
            signal.oaconvolve(white, one, mode="valid") for one in (taps, following)
        )
        yield before + fade[:wanted] * (after - before)
        taps = following

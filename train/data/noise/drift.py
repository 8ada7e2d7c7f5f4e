"""Noise whose spectrum drifts over minutes.

White noise passes through a colouring filter that changes every 16 s; the outputs of
consecutive filters are cross-faded linearly. The filters are zero-phase and share the
white noise, so the result has the interpolated amplitude response. Without drift it is
exactly ``spectra.coloured_noise``.
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
"""Time between two spectra, s."""


@dataclass(frozen=True)
class DriftSettings:
    """Amplitude and time scale of a spectrum's drift.

    The logarithms of level, tilt, line heights and curve weights are
    Ornstein-Uhlenbeck processes.

    Attributes:
        correlation_length: Correlation time of the processes, s.
        level: Standard deviation of the log-amplitude of the whole spectrum.
        tilt: Standard deviation of the log-amplitude at 20 Hz relative to 500 Hz.
        lines: Standard deviation of the log-amplitude of each line in the curves.
        mixing: Standard deviation of the log-weights of the curves: 0 averages them
            evenly, large values switch between them.

    Raises:
        ConfigurationError: The correlation length is not above zero, or a standard
            deviation is below zero.
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
                "drift: expected a correlation_length above zero and standard "
                f"deviations of zero or more, found {self}"
            )


class DriftingSpectrum:
    """Generates a sequence of amplitude spectral densities, 16 s apart.

    Args:
        curves: Amplitude spectral densities on one grid, 1/sqrt(Hz), each [bins].
        sample_rate: Hz.
        settings: Amplitude and time scale of the drift.
        rng: Random generator.
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
        # A line is a run of bins above the running median over 8 Hz; it moves as one.
        mean = self.logarithms.mean(0)
        width = round(8 / (sample_rate / 2) * (bins - 1)) | 1
        self.labels, self.num_lines = ndimage.label(
            mean - ndimage.median_filter(mean, width) > np.log(1.5)
        )
        self.state = rng.standard_normal(2 + len(curves) + self.num_lines)

    def draw(self) -> NDArray[Any]:
        """Return the current spectrum, and advance by 16 s.

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
    """Draw Gaussian noise with a drifting spectrum, piece by piece.

    Args:
        curves: One-sided amplitude spectral densities that the spectrum drifts between,
            1/sqrt(Hz), at evenly spaced frequencies from 0 to ``sample_rate / 2``, each
            [bins].
        size: Total number of samples.
        sample_rate: Hz.
        rng: Random generator.
        settings: Amplitude and time scale of the drift; the defaults if None.

    Yields:
        Strain, float64, [16 s * sample_rate]; the last piece may be shorter. Memory
        does not grow with ``size``.
    """
    # The spectrum has its own generator, so that without drift the white noise is that
    # of coloured_noise.
    spectrum = DriftingSpectrum(
        curves, sample_rate, settings or DriftSettings(), rng.spawn(1)[0]
    )
    step_size = round(STEP_LENGTH * sample_rate)
    taps = colouring_filter(spectrum.draw(), sample_rate)
    white = rng.standard_normal(len(taps) - 1)
    fade = np.arange(step_size) / step_size
    for start in range(0, size, step_size):
        piece_size = min(step_size, size - start)
        white = np.append(white[-(len(taps) - 1) :], rng.standard_normal(piece_size))
        following = colouring_filter(spectrum.draw(), sample_rate)
        before = signal.oaconvolve(white, taps, mode="valid")
        after = signal.oaconvolve(white, following, mode="valid")
        yield before + fade[:piece_size] * (after - before)
        taps = following

"""Spectral lines to add to noise: mains, violin modes and calibration lines.

The measured noise curves have their run's lines already; the expected ones lack most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

KNOT_LENGTH = 8.0
"""Time between the knots of a line's frequency and amplitude, s."""

FLOOR_WIDTH = 8.0
"""Width of the running median that estimates the noise between the lines, Hz."""


@dataclass(frozen=True)
class Line:
    """A line whose frequency and amplitude drift.

    Attributes:
        frequency: Mean frequency, Hz.
        prominence: Amplitude over the noise between the lines, in an amplitude spectral
            density with 1 Hz resolution.
        wander: Standard deviation of the frequency, Hz; of the fundamental's for a
            harmonic of the mains.
        level_wander: Standard deviation of the log-amplitude.
        harmonic: Number of the mains harmonic, which shares the mains' phase; 0 for any
            other line.
    """

    frequency: float
    prominence: float
    wander: float = 0.0
    level_wander: float = 0.1
    harmonic: int = 0


MAINS_FREQUENCY, VIOLIN_BANDS = 60.0, ((495.0, 515.0), (990.0, 1015.0))
"""Mains frequency and bands of the violin modes, Hz, of detectors not listed below."""

MAINS_FREQUENCIES = {"V1": 50.0}
VIOLINS = {"V1": ((442.0, 455.0), (884.0, 907.0))}
"""Bands of the violin modes, Hz; Virgo's from its measured O3 curve."""

CALIBRATION = {
    "H1": (15.6, 16.4, 17.1, 17.6, 410.3),
    "L1": (15.1, 15.7, 16.3, 16.9, 434.9),
}
"""Frequencies of the calibration lines, Hz."""


def detector_lines(ifo: str, rng: np.random.Generator) -> list[Line]:
    """Draw the lines of a detector.

    Args:
        ifo: Detector. ``V1`` has the European mains frequency and its own violin modes;
            ``H1`` and ``L1`` have the calibration lines of O3 (Sun et al.,
            arXiv:2005.02531), other detectors none.
        rng: Random generator.

    Returns:
        The mains' first six harmonics; four violin modes in each of two bands; and
        calibration lines of constant frequency.
    """
    mains = MAINS_FREQUENCIES.get(ifo, MAINS_FREQUENCY)
    lines = [
        Line(
            n * mains,
            float(np.exp(rng.uniform(*np.log((3, 30))))) / n,
            0.01,
            0.2,
            n,
        )
        for n in range(1, 7)
    ]
    for low, high in VIOLINS.get(ifo, VIOLIN_BANDS):
        lines += [
            Line(float(frequency), float(np.exp(rng.uniform(*np.log((3, 50))))), 1e-3)
            for frequency in rng.uniform(low, high, 4)
        ]
    lines += [
        Line(frequency, 20.0, 0.0, 0.02) for frequency in CALIBRATION.get(ifo, ())
    ]
    return lines


class LineNoise:
    """Generates the sum of several lines, in pieces that join continuously.

    Args:
        lines: Lines; those at or above the Nyquist frequency are omitted.
        asd: Amplitude spectral density, evenly spaced from 0 to ``sample_rate / 2``,
            1/sqrt(Hz), [bins]; prominences are relative to its running median over
            8 Hz.
        sample_rate: Hz.
        rng: Random generator.
        correlation_length: Correlation time of frequency and amplitude, s.
    """

    def __init__(
        self,
        lines: Sequence[Line],
        asd: NDArray[Any],
        sample_rate: int,
        rng: np.random.Generator,
        correlation_length: float = 120.0,
    ) -> None:
        # Above the Nyquist frequency, lines would alias.
        lines = [line for line in lines if line.frequency < sample_rate / 2]
        self.lines, self.sample_rate, self.rng = lines, sample_rate, rng
        self.knot_size = round(KNOT_LENGTH * sample_rate)
        self.keep = np.exp(-KNOT_LENGTH / correlation_length)
        frequencies = np.array([line.frequency for line in lines])
        prominence = np.array([line.prominence for line in lines])
        grid = np.linspace(0, sample_rate / 2, len(asd))
        # The median ignores the lines that a measured curve has already.
        width = round(FLOOR_WIDTH / (sample_rate / 2) * (len(asd) - 1)) | 1
        floor = ndimage.median_filter(asd, width)
        # A sine of amplitude a has the mean square a^2 / 2.
        heights = prominence * np.interp(frequencies, grid, floor)
        self.amplitudes = np.sqrt(2) * heights
        mains = rng.uniform(0, 2 * np.pi)
        self.phases = np.array(
            [
                line.harmonic * mains if line.harmonic else rng.uniform(0, 2 * np.pi)
                for line in lines
            ]
        )
        self.level = rng.standard_normal(len(lines))
        self.offset = self._shared(rng.standard_normal(len(lines)))
        self.left = np.zeros(0)

    def _shared(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give all harmonics of the mains the first one's value, in place."""
        harmonics = [i for i, line in enumerate(self.lines) if line.harmonic]
        if harmonics:
            values[harmonics] = values[harmonics[0]]
        return values

    def _knot(self) -> NDArray[Any]:
        """Generate the strain up to the next knot, [8 s * sample_rate]."""
        size, rate = self.knot_size, self.sample_rate
        fresh = np.sqrt(1 - self.keep**2)
        level = self.keep * self.level + fresh * self.rng.standard_normal(
            len(self.lines)
        )
        offset = self.keep * self.offset + fresh * self._shared(
            self.rng.standard_normal(len(self.lines))
        )
        ramp = np.arange(size) / size
        total = np.zeros(size)
        for i, line in enumerate(self.lines):
            wander = line.wander * max(line.harmonic, 1)
            # The phase is the integral of a frequency that changes linearly.
            begin = line.frequency + wander * self.offset[i]
            change = wander * (offset[i] - self.offset[i])
            turns = (begin * ramp + change * ramp**2 / 2) * size / rate
            logarithm = self.level[i] + (level[i] - self.level[i]) * ramp
            amplitude = self.amplitudes[i] * np.exp(line.level_wander * logarithm)
            total += amplitude * np.sin(self.phases[i] + 2 * np.pi * turns)
            self.phases[i] += 2 * np.pi * (begin + change / 2) * size / rate
        # Phases that grow without bound would lose precision.
        self.phases %= 2 * np.pi
        self.level, self.offset = level, offset
        return total

    def draw(self, size: int) -> NDArray[Any]:
        """Generate the next samples.

        Args:
            size: Number of samples.

        Returns:
            Strain, float64, [size].
        """
        pieces = [self.left]
        while sum(map(len, pieces)) < size:
            pieces.append(self._knot())
        joined = np.concatenate(pieces)
        self.left = joined[size:]
        return joined[:size]

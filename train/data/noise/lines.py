"""Spectral lines: mains, violin modes and calibration lines, on top of a noise curve.

The measured curves have the lines of their time already; the expected ones lack most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

KNOT_LENGTH = 8.0
FLOOR_WIDTH = 8.0


@dataclass(frozen=True)
class Line:
    """A line that wanders.

    Attributes:
        frequency: Hz.
        prominence: Height over the noise between the lines, in an amplitude spectral
            density with 1 Hz of resolution.
        wander: Standard deviation of the frequency's slow changes, Hz.
        level_wander: Standard deviation of the amplitude's logarithm.
        harmonic: Which harmonic of the mains it is, whose phase it then follows; 0 for
            a line of its own.
    """

    frequency: float
    prominence: float
    wander: float = 0.0
    level_wander: float = 0.1
    harmonic: int = 0


MAINS_FREQUENCY, VIOLIN_BANDS = 60.0, ((495.0, 515.0), (990.0, 1015.0))
"""Of detectors that the next tables do not name."""

MAINS_FREQUENCIES = {"V1": 50.0}
VIOLINS = {"V1": ((442.0, 455.0), (884.0, 907.0))}
"""Bands of the violin modes, Hz; Virgo's are those of its measured curve of O3."""

CALIBRATION = {
    "H1": (15.6, 16.4, 17.1, 17.6, 410.3),
    "L1": (15.1, 15.7, 16.3, 16.9, 434.9),
}


def detector_lines(ifo: str, rng: np.random.Generator) -> list[Line]:
    """Draw the lines of one detector.

    Args:
        ifo: Detector. ``V1`` has the mains of Europe and violin modes of its own;
            ``H1`` and ``L1`` have the calibration lines of O3 (Sun et al.,
            arXiv:2005.02531), others have none.
        rng: Source of randomness.

    Returns:
        Mains and five harmonics; four violin modes in each of two bands; calibration
        lines, which do not wander.
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
    """The sum of several lines, made piece by piece: pieces join without a step.

    Args:
        lines: Which lines; those from half the sample rate on are left out.
        asd: Amplitude spectral density, evenly spaced from 0 to ``sample_rate / 2``,
            1/sqrt(Hz), [bins]; the prominence refers to its median over 8 Hz.
        sample_rate: Hz.
        rng: Source of randomness.
        correlation_length: Time over which frequency and amplitude change, s.
    """

    def __init__(
        self,
        lines: Sequence[Line],
        asd: NDArray[Any],
        sample_rate: int,
        rng: np.random.Generator,
        correlation_length: float = 120.0,
    ) -> None:
        # They would come back as lines at other frequencies.
        lines = [line for line in lines if line.frequency < sample_rate / 2]
        self.lines, self.sample_rate, self.rng = lines, sample_rate, rng
        self.knot_size = round(KNOT_LENGTH * sample_rate)
        self.keep = np.exp(-KNOT_LENGTH / correlation_length)
        frequencies = np.array([line.frequency for line in lines])
        prominence = np.array([line.prominence for line in lines])
        grid = np.linspace(0, sample_rate / 2, len(asd))
        # A measured curve has a line at many of these frequencies already.
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
        """Let the harmonics of the mains move together."""
        harmonics = [i for i, line in enumerate(self.lines) if line.harmonic]
        if harmonics:
            values[harmonics] = values[harmonics[0]]
        return values

    def _knot(self) -> NDArray[Any]:
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
        # Small phases stay exact.
        self.phases %= 2 * np.pi
        self.level, self.offset = level, offset
        return total

    def draw(self, size: int) -> NDArray[Any]:
        """Make the next samples.

        Args:
            size: Samples wanted.

        Returns:
            Strain, float64, [size].
        """
        pieces = [self.left]
        while sum(map(len, pieces)) < size:
            pieces.append(self._knot())
        joined = np.concatenate(pieces)
        self.left = joined[size:]
        return joined[:size]

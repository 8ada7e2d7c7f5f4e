"""Analytic glitches: transient noise in a single detector.

Each family resembles a class of Gravity Spy (Zevin et al., arXiv:1611.04596; Glanzer et
al., arXiv:2208.12849); docs/explanation/simulation.md compares the ranges with those of
the class. Waveforms have unit amplitude; ``scale_to_snr`` scales them to an SNR.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.train.data.noise.families import (
    FAMILIES,
    WEIGHTS,
)


def blip(times: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Short symmetric burst: a sine-Gaussian of 50 to 700 Hz, quality 1.5 to 12.

    Args:
        times: Time from the glitch's centre, s, [size].
        rng: Random generator.

    Returns:
        Waveform, [size].
    """
    frequency = np.exp(rng.uniform(np.log(50), np.log(700)))
    quality = np.exp(rng.uniform(np.log(1.5), np.log(12)))
    width = quality / (2 * np.pi * frequency)
    phase = rng.uniform(0, 2 * np.pi)
    shape: NDArray[Any] = np.exp(-0.5 * (times / width) ** 2) * np.cos(
        2 * np.pi * frequency * times + phase
    )
    return shape


def tomte(times: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Low-frequency burst, slower to rise than to fall: 25 to 110 Hz, quality 1.5 to 5.

    Arguments and return as for ``blip``.
    """
    frequency = rng.uniform(25, 110)
    rise = rng.uniform(1.5, 5) / (2 * np.pi * frequency)
    fall = rise * rng.uniform(0.3, 0.8)
    width = np.where(times < 0, rise, fall)
    phase = rng.uniform(0, 2 * np.pi)
    shape: NDArray[Any] = np.exp(-0.5 * (times / width) ** 2) * np.cos(
        2 * np.pi * frequency * times + phase
    )
    return shape


def scattered_light(times: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Scattered light: one or two arches of 0.6 to 2 s that peak at 35 to 100 Hz.

    The fringe frequency is ``f_max * |sin(pi t / T)|`` (Accadia et al., CQG 27 194011,
    2010), under a cosine envelope one to two arches long. Arguments and return as for
    ``blip``.
    """
    period = rng.uniform(0.6, 2)
    top = rng.uniform(35, 100)
    arches = rng.integers(1, 3)
    offset = 0.5 * (arches % 2)
    phase = 2 * np.pi * np.cumsum(
        top * np.abs(np.sin(np.pi * (times / period + offset)))
    ) * (times[1] - times[0]) + rng.uniform(0, 2 * np.pi)
    span = np.clip(times / (period * arches), -0.5, 0.5)
    shape: NDArray[Any] = np.cos(np.pi * span) ** 2 * np.cos(phase)
    return shape


def koi_fish(times: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Koi fish: a blip of 80 to 350 Hz with fins of 25 to 45 Hz before and after it.

    Arguments and return as for ``blip``.
    """
    phases = rng.uniform(0, 2 * np.pi, 2)
    shape = np.zeros(len(times))
    for low, high, qualities, phase, share in (
        (80, 350, (1, 3), phases[0], rng.uniform(0.4, 0.8)),
        (25, 45, (3, 8), phases[1], None),
    ):
        frequency = np.exp(rng.uniform(np.log(low), np.log(high)))
        width = rng.uniform(*qualities) / (2 * np.pi * frequency)
        burst = np.exp(-0.5 * (times / width) ** 2) * np.cos(
            2 * np.pi * frequency * times + phase
        )
        shape += burst if share is None else share * burst
    scaled: NDArray[Any] = shape / np.abs(shape).max()
    return scaled


def whistle(times: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Whistle: a beat note that sweeps down to 150 to 400 Hz and up again.

    It starts and ends at 500 to 950 Hz and lasts 0.2 to 0.8 s. Arguments and return as
    for ``blip``.
    """
    length = rng.uniform(0.2, 0.8)
    top, bottom = rng.uniform(500, 950), rng.uniform(150, 400)
    away = np.abs(times) / (length / 2)
    # The integral of a frequency that rises linearly to both sides.
    turns = np.abs(times) * (bottom + (top - bottom) * away / 2)
    phase = 2 * np.pi * np.sign(times) * turns + rng.uniform(0, 2 * np.pi)
    shape: NDArray[Any] = np.cos(np.pi / 2 * np.clip(away, 0, 1)) ** 2 * np.cos(phase)
    result: NDArray[Any] = shape / np.abs(shape).max()
    return result


SHAPES: dict[str, Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]] = {
    family: globals()[family] for family in FAMILIES
}
"""Waveform function of each family."""


def draw_glitch(
    size: int,
    centre_size: float,
    sample_rate: int,
    rng: np.random.Generator,
    weights: Mapping[str, float] = WEIGHTS,
) -> NDArray[Any]:
    """Draw the waveform of a glitch of a random family.

    Args:
        size: Number of samples.
        centre_size: Sample at which the glitch is centred.
        sample_rate: Hz.
        rng: Random generator.
        weights: Relative rate of each of ``FAMILIES``.

    Returns:
        Waveform of unit amplitude, float64, [size].
    """
    shares = np.array(list(weights.values()))
    family = rng.choice(list(weights), p=shares / shares.sum())
    times = (np.arange(size) - centre_size) / sample_rate
    return SHAPES[family](times, rng)


def draw_snrs(
    n: int, limits: tuple[float, float], index: float, rng: np.random.Generator
) -> NDArray[Any]:
    """Draw SNRs from a power law.

    Args:
        n: Number of SNRs.
        limits: Smallest and largest SNR.
        index: Exponent of the SNR's probability density: -1 is log-uniform, 0 uniform,
            -4 that of sources uniform in volume.
        rng: Random generator.

    Returns:
        SNRs, [n].
    """
    low, high = limits
    share = rng.uniform(size=n)
    if index == -1:
        logarithmic: NDArray[Any] = low * (high / low) ** share
        return logarithmic
    power = index + 1
    snrs: NDArray[Any] = (low**power + share * (high**power - low**power)) ** (
        1 / power
    )
    return snrs


def scale_to_snr(
    shape: NDArray[Any],
    asd: NDArray[Any],
    snr: float,
    sample_rate: int,
    highpass: float,
) -> NDArray[Any]:
    """Scale a waveform to an optimal SNR in one detector.

    Args:
        shape: Waveform of any amplitude, [size].
        asd: One-sided amplitude spectral density, 1/sqrt(Hz), evenly spaced from 0 to
            ``sample_rate / 2``, [bins].
        snr: Optimal SNR.
        sample_rate: Hz.
        highpass: Low-frequency cutoff of the SNR, Hz.

    Returns:
        Strain, [size].
    """
    frequencies = np.fft.rfftfreq(len(shape), 1 / sample_rate)
    grid = np.linspace(0, sample_rate / 2, len(asd))
    density = np.abs(np.fft.rfft(shape)) / np.interp(frequencies, grid, asd)
    density = density[frequencies >= highpass] / sample_rate
    power = 4 * np.sum(density**2) * sample_rate / len(shape)
    scaled: NDArray[Any] = shape * (snr / np.sqrt(power))
    return scaled

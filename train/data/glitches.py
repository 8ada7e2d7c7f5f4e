"""Analytic glitches: what a single detector does when it misbehaves.

Parameters are drawn from ranges like those that Gravity Spy's classes show in O3
(Zevin et al., arXiv:1611.04596; Glanzer et al., arXiv:2208.12849). Shapes have unit
amplitude; :func:`scale_to_snr` gives them a size.
"""

from collections.abc import Callable

import numpy as np


def blip(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Short symmetric burst: a sine-Gaussian of 50 to 700 Hz, quality 1.5 to 12.

    Args:
        times: Time from the glitch's centre, s, [size].
        rng: Source of randomness.

    Returns:
        Shape, [size].
    """
    frequency = np.exp(rng.uniform(np.log(50), np.log(700)))
    quality = np.exp(rng.uniform(np.log(1.5), np.log(12)))
    width = quality / (2 * np.pi * frequency)
    phase = rng.uniform(0, 2 * np.pi)
    shape: np.ndarray = np.exp(-0.5 * (times / width) ** 2) * np.cos(
        2 * np.pi * frequency * times + phase
    )
    return shape


def tomte(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Low burst that rises slower than it falls, 25 to 110 Hz, quality 1.5 to 5.

    Arguments and return as for :func:`blip`.
    """
    frequency = rng.uniform(25, 110)
    rise = rng.uniform(1.5, 5) / (2 * np.pi * frequency)
    fall = rise * rng.uniform(0.3, 0.8)
    width = np.where(times < 0, rise, fall)
    phase = rng.uniform(0, 2 * np.pi)
    shape: np.ndarray = np.exp(-0.5 * (times / width) ** 2) * np.cos(
        2 * np.pi * frequency * times + phase
    )
    return shape


def scattered_light(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fringes of moving scatterers: arches of 0.6 to 2 s that reach 35 to 100 Hz.

    The fringe frequency is ``f_max * |sin(pi t / T)|`` (Accadia et al., CQG 27 194011,
    2010), under a cosine envelope one to two arches long. Arguments and return as for
    :func:`blip`.
    """
    period = rng.uniform(0.6, 2)
    top = rng.uniform(35, 100)
    arches = rng.integers(1, 3)
    offset = 0.5 * (arches % 2)
    phase = 2 * np.pi * np.cumsum(
        top * np.abs(np.sin(np.pi * (times / period + offset)))
    ) * (times[1] - times[0]) + rng.uniform(0, 2 * np.pi)
    span = np.clip(times / (period * arches), -0.5, 0.5)
    shape: np.ndarray = np.cos(np.pi * span) ** 2 * np.cos(phase)
    return shape


FAMILIES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "blip": blip,
    "tomte": tomte,
    "scattered_light": scattered_light,
}
WEIGHTS = (0.6, 0.25, 0.15)


def draw_glitch(
    size: int, centre_size: float, sample_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw a glitch of any family, blips most often.

    Args:
        size: Samples wanted.
        centre_size: Sample at which the glitch is centred.
        sample_rate: Hz.
        rng: Source of randomness.

    Returns:
        Shape of unit amplitude, float64, [size].
    """
    family = rng.choice(list(FAMILIES), p=WEIGHTS)
    times = (np.arange(size) - centre_size) / sample_rate
    return FAMILIES[family](times, rng)


def scale_to_snr(
    shape: np.ndarray, asd: np.ndarray, snr: float, sample_rate: int, highpass: float
) -> np.ndarray:
    """Scale a shape to an optimal SNR in one detector.

    Args:
        shape: Strain of any amplitude, [size].
        asd: One-sided amplitude spectral density, 1/sqrt(Hz), evenly spaced from 0 to
            ``sample_rate / 2``, [bins].
        snr: Optimal SNR wanted.
        sample_rate: Hz.
        highpass: Frequency from which the SNR is counted, Hz.

    Returns:
        Strain, [size].
    """
    frequencies = np.fft.rfftfreq(len(shape), 1 / sample_rate)
    grid = np.linspace(0, sample_rate / 2, len(asd))
    density = np.abs(np.fft.rfft(shape)) / np.interp(frequencies, grid, asd)
    density = density[frequencies >= highpass] / sample_rate
    power = 4 * np.sum(density**2) * sample_rate / len(shape)
    scaled: np.ndarray = shape * (snr / np.sqrt(power))
    return scaled

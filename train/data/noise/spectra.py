"""Stationary Gaussian noise with a given amplitude spectral density."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

FILTER_LENGTH = 2.0
"""Length of the colouring filter, s."""


def colouring_filter(asd: NDArray[Any], sample_rate: int) -> NDArray[Any]:
    """Design the FIR filter that colours white noise of unit variance.

    Args:
        asd: One-sided amplitude spectral density, 1/sqrt(Hz), at evenly spaced
            frequencies from 0 to ``sample_rate / 2``, [n].
        sample_rate: Hz.

    Returns:
        Taps of a symmetric, zero-phase filter, [2 s * sample_rate + 1]. Its Hann window
        limits the frequency resolution to about 1 Hz.
    """
    taps_size = int(FILTER_LENGTH * sample_rate)
    # White noise of unit variance has the one-sided PSD 2 / sample_rate.
    response = asd * np.sqrt(sample_rate / 2)
    impulse = np.fft.fftshift(np.fft.irfft(response))
    middle = len(impulse) // 2
    half = min(taps_size // 2, middle)
    taps: NDArray[Any] = impulse[middle - half : middle + half]
    taps = taps * signal.windows.hann(2 * half, sym=False)
    return np.append(taps, taps[0])


def coloured_noise(
    asd: NDArray[Any], size: int, sample_rate: int, rng: np.random.Generator
) -> NDArray[Any]:
    """Draw stationary Gaussian noise with a given amplitude spectral density.

    Args:
        asd: One-sided amplitude spectral density, 1/sqrt(Hz), at evenly spaced
            frequencies from 0 to ``sample_rate / 2``, [n].
        size: Number of samples.
        sample_rate: Hz.
        rng: Random generator.

    Returns:
        Strain, float64, [size].
    """
    taps = colouring_filter(asd, sample_rate)
    white = rng.standard_normal(size + len(taps) - 1)
    noise: NDArray[Any] = signal.oaconvolve(white, taps, mode="valid")
    return noise

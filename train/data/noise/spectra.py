"""Stationary Gaussian noise of a given spectrum, without torch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

FILTER_LENGTH = 2.0


def colouring_filter(asd: NDArray[Any], sample_rate: int) -> NDArray[Any]:
    """Design the FIR that turns white noise of unit variance into detector noise.

    Args:
        asd: One-sided amplitude spectral density, 1/sqrt(Hz), at evenly spaced
            frequencies from 0 to ``sample_rate / 2``, [n].
        sample_rate: Hz.

    Returns:
        A symmetric filter of zero phase, [2 s * sample_rate + 1]. The window that
        tapers it limits the resolution to about 1 Hz.
    """
    taps_size = int(FILTER_LENGTH * sample_rate)
    # One-sided: white noise of unit variance has the density 2 / sample_rate.
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
    """Draw stationary Gaussian noise whose spectrum is a given curve.

    Args:
        asd: One-sided amplitude spectral density, 1/sqrt(Hz), at evenly spaced
            frequencies from 0 to ``sample_rate / 2``, [n].
        size: Samples wanted.
        sample_rate: Hz.
        rng: Source of randomness.

    Returns:
        Strain, float64, [size].
    """
    taps = colouring_filter(asd, sample_rate)
    white = rng.standard_normal(size + len(taps) - 1)
    noise: NDArray[Any] = signal.oaconvolve(white, taps, mode="valid")
    return noise

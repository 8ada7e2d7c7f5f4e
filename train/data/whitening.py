"""PSD and whitening filter of the served models, in float64 NumPy.

The PSD is the median of Hann-windowed periodograms. The filter is its inverse square
root, cut to ``fduration`` by a Hann window in the time domain, as in ml4gw's
``SpectralDensity`` and ``Whiten``. It is applied as a symmetric FIR filter. A factor
restores unit variance: for a PSD of few periodograms, the mean of 1/PSD exceeds that of
the true PSD.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import integrate, signal, special

from chirpwatch.geometry import Geometry

Design = Callable[[NDArray[Any], Geometry], NDArray[Any]]
"""Function that designs a whitening filter from periodograms; see ``design_filter``."""

MEDIAN_CORRELATIONS = (1.0, 0.26112, 0.01351)
"""Correlation between frequency bins 0, 1 and 2 apart, of a median PSD.

It holds for the median of many Hann-windowed periodograms. The powers of a single
periodogram in bins 1 and 2 apart have correlations of 4/9 and 1/36, the squares of the
window's autocorrelation in frequency, 2/3 and 1/6. A median depends on the number of
powers below the distribution's median, ln 2. In two bins, these numbers have the
correlation 4 P - 1, where P is the probability that both powers are below ln 2.
"""


def periodograms(
    strain: Float[NDArray[Any], " size"], fft_size: int, sample_rate: int
) -> Float[NDArray[Any], "segments bins"]:
    """Compute Hann-windowed periodograms of segments that overlap by half.

    Args:
        strain: One detector's strain, [size].
        fft_size: Length of a segment, samples.
        sample_rate: Hz.

    Returns:
        One-sided power spectral densities, 1/Hz, [segments, fft_size // 2 + 1].
    """
    window = signal.windows.hann(fft_size, sym=False)
    segments = np.lib.stride_tricks.sliding_window_view(strain, fft_size)
    segments = segments[:: fft_size // 2]
    segments = (segments - segments.mean(-1, keepdims=True)) * window
    power = np.abs(np.fft.rfft(segments)) ** 2
    power[:, 1:-1] *= 2
    density: NDArray[Any] = power / (sample_rate * (window**2).sum())
    return density


def median_psd(
    periodograms: Float[NDArray[Any], "segments bins"],
) -> Float[NDArray[Any], " bins"]:
    """Estimate a PSD by the median of periodograms, corrected for its bias.

    Args:
        periodograms: One detector's periodograms, [segments, bins].

    Returns:
        PSD, [bins].
    """
    psd: NDArray[Any] = np.median(periodograms, axis=0) / median_bias(len(periodograms))
    return psd


def median_bias(count: int) -> float:
    """Expected median of ``count`` exponential variables with mean 1.

    1 - 1/2 + 1/3 - … + 1/count for an odd count (Allen et al., arXiv:gr-qc/0509116,
    appendix B); an even count uses the value of ``count - 1``.
    """
    terms = np.arange(1, (count - 1) // 2 * 2 + 2)
    return float(np.sum((-1.0) ** (terms + 1) / terms))


@functools.cache
def whitened_variance(count: int, filter_size: int, fft_size: int) -> float:
    """Variance of Gaussian noise whitened by an estimated PSD's inverse square root.

    The relative error of the PSD at a frequency is that of the median M of ``count``
    exponential variables, so the whitened amplitude is r = (bias / M)^1/2. The filter
    passes the mean of r, and a fraction s of the variance of r between bins. This
    fraction is the mean of the squared Hann window in time, weighted by the Fourier
    transform of the correlation between bins. The variance is E[r]^2 + s Var[r]. The
    correlation of 1/36 between consecutive periodograms, which overlap by half, is
    neglected.

    Args:
        count: Number of periodograms in the PSD's median, odd, at least 3.
        filter_size: Length of the Hann window that cuts the filter, samples.
        fft_size: Length of a periodogram, samples.

    Returns:
        The variance; 1.27 for 7 periodograms of 2 s and a filter of 1 s, 1.03 for 63.
    """
    half = (count + 1) // 2
    log_norm = special.gammaln(count + 1) - 2 * special.gammaln(half)

    def moment(power: float) -> float:
        """E[M^power]; M is an order statistic (David and Nagaraja)."""

        def density(x: float) -> float:
            log_density = (half - 1) * math.log(-math.expm1(-x)) - half * x + log_norm
            result: float = math.exp(log_density) * x**power
            return result

        return float(integrate.quad(density, 0, 50, points=(0.3, 0.7, 1.5))[0])

    bias = median_bias(count)
    mean = math.sqrt(bias) * moment(-0.5)
    spread = bias * moment(-1) - mean**2
    lags = np.arange(filter_size) - filter_size // 2
    taper = np.cos(np.pi * lags / filter_size) ** 2
    correlation = sum(
        (1 if k == 0 else 2) * c * np.cos(2 * np.pi * k * lags / fft_size)
        for k, c in enumerate(MEDIAN_CORRELATIONS)
    )
    return mean**2 + spread * float((taper**2 * correlation).sum()) / fft_size


def whitening_taps(
    psd: Float[NDArray[Any], " bins"],
    count: int,
    filter_size: int,
    sample_rate: int,
    highpass: float,
) -> Float[NDArray[Any], " taps"]:
    """Design a whitening filter from a PSD.

    Args:
        psd: One-sided PSD, 1/Hz, evenly spaced from 0 to the Nyquist frequency, [bins].
        count: Number of periodograms in its median.
        filter_size: Length of the Hann window that cuts the filter, samples.
        sample_rate: Hz.
        highpass: Cutoff of the high-pass filter, Hz.

    Returns:
        Taps, [filter_size - 1], symmetric about the middle one; the window's first
        tap is zero and left out. Noise with the estimated PSD is whitened to unit
        variance.
    """
    fft_size = 2 * (len(psd) - 1)
    variance = whitened_variance(count, filter_size, fft_size)
    response = np.sqrt(2 / (sample_rate * variance * psd))
    response[: int(highpass * fft_size / sample_rate)] = 0
    response[-1] = 0
    impulse = np.fft.fftshift(np.fft.irfft(response))
    start = (fft_size - filter_size) // 2
    window = signal.windows.hann(filter_size, sym=False)
    taps: NDArray[Any] = (impulse[start : start + filter_size] * window)[1:]
    return taps


def design_filter(
    periodograms: Float[NDArray[Any], "segments bins"], geometry: Geometry
) -> Float[NDArray[Any], " taps"]:
    """Design a whitening filter from periodograms, as the served models do.

    Args:
        periodograms: Periodograms of the preceding strain, [segments, bins].
        geometry: Length of the filter, sample rate, and highpass.

    Returns:
        Taps, see ``whitening_taps``.
    """
    return whitening_taps(
        median_psd(periodograms),
        len(periodograms),
        geometry.filter_size,
        geometry.sample_rate,
        geometry.highpass,
    )


def whiten(
    strain: Float[NDArray[Any], " size"], taps: Float[NDArray[Any], " taps"]
) -> Float[NDArray[Any], " time"]:
    """Whiten strain, and drop half a filter length of corrupted samples at each end.

    Args:
        strain: One detector's strain, [size].
        taps: From ``whitening_taps``, [filter_size - 1].

    Returns:
        Whitened strain, [size - filter_size]. Its sample ``i`` has the time of the
        strain's sample ``i + filter_size / 2``.
    """
    whitened: NDArray[Any] = signal.oaconvolve(strain, taps, mode="valid")
    return whitened[1 : len(strain) - len(taps)]


def zero_phase_response(
    taps: Float[NDArray[Any], " taps"], size: int
) -> Float[NDArray[Any], " bins"]:
    """Zero-phase transfer function of a symmetric filter.

    Args:
        taps: Symmetric taps, odd in number, [taps].
        size: Length of the series to which it will be applied, samples.

    Returns:
        Real response, [size // 2 + 1].
    """
    padded = np.zeros(size)
    padded[: len(taps)] = taps
    response: NDArray[Any] = np.fft.rfft(np.roll(padded, -(len(taps) // 2))).real
    return response

"""Power spectral density and whitening filter as served, in float64 numpy.

The PSD is the median of Hann-windowed periodograms; the filter is its inverse square
root, cut to ``fduration`` by a Hann window in the time domain (ml4gw's
``SpectralDensity`` and ``Whiten``), applied as one symmetric FIR.
"""

import numpy as np
from scipy import signal


def periodograms(strain: np.ndarray, fft_size: int, sample_rate: int) -> np.ndarray:
    """Compute the periodograms of segments that overlap by half.

    Args:
        strain: One detector's strain, [size].
        fft_size: Samples of a segment.
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
    density: np.ndarray = power / (sample_rate * (window**2).sum())
    return density


def median_psd(periodograms: np.ndarray) -> np.ndarray:
    """Average periodograms by their median, corrected for its bias.

    Args:
        periodograms: Of one detector, [segments, bins].

    Returns:
        PSD, [bins]. The bias of a median of n exponentially distributed values is
        1 - 1/2 + 1/3 - … up to 1/n for odd n (Allen et al., arXiv:gr-qc/0509116,
        appendix B); an even n has that of n - 1.
    """
    terms = np.arange(1, (len(periodograms) - 1) // 2 * 2 + 2)
    bias = np.sum((-1.0) ** (terms + 1) / terms)
    psd: np.ndarray = np.median(periodograms, axis=0) / bias
    return psd


def whitening_taps(
    psd: np.ndarray, filter_size: int, sample_rate: int, highpass: float
) -> np.ndarray:
    """Design the whitening filter of a PSD.

    Args:
        psd: One-sided, 1/Hz, evenly spaced from 0 to the Nyquist frequency, [bins].
        filter_size: Length of the Hann window that cuts the filter, samples.
        sample_rate: Hz.
        highpass: Frequency below which the filter passes nothing, Hz.

    Returns:
        Taps, [filter_size - 1], symmetric about the middle one; the window's first
        tap is zero and left out. Noise of this PSD comes out with unit variance.
    """
    fft_size = 2 * (len(psd) - 1)
    response = np.sqrt(2 / (sample_rate * psd))
    response[: int(highpass * fft_size / sample_rate)] = 0
    response[-1] = 0
    impulse = np.fft.fftshift(np.fft.irfft(response))
    start = (fft_size - filter_size) // 2
    window = signal.windows.hann(filter_size, sym=False)
    taps: np.ndarray = (impulse[start : start + filter_size] * window)[1:]
    return taps


def whiten(strain: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Whiten strain, and drop the half filter length at each end that is corrupted.

    Args:
        strain: One detector's strain, [size].
        taps: From :func:`whitening_taps`, [filter_size - 1].

    Returns:
        Whitened strain, [size - filter_size]: sample ``i`` belongs to sample
        ``i + filter_size / 2`` of the strain.
    """
    whitened: np.ndarray = signal.oaconvolve(strain, taps, mode="valid")
    return whitened[1 : len(strain) - len(taps)]


def zero_phase_response(taps: np.ndarray, size: int) -> np.ndarray:
    """Transfer function of a symmetric filter about its middle tap.

    Args:
        taps: Symmetric, odd in number, [taps].
        size: Samples of the series that it will be applied to in frequency.

    Returns:
        Real response, [size // 2 + 1].
    """
    padded = np.zeros(size)
    padded[: len(taps)] = taps
    response: np.ndarray = np.fft.rfft(np.roll(padded, -(len(taps) // 2))).real
    return response

"""The offline reference: an independent calculation of scores, in float64 and PyTorch.

It shares only the geometry and the network with the served models: PSDs come from
SciPy, the filter is applied to all strain at once, and the network runs in PyTorch. The
parity report and the tests compare the served models with it.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import integrate, signal, stats

from chirpwatch.errors import StrainError
from chirpwatch.geometry import Geometry
from chirpwatch.train.networks.models import Sliding


@dataclass(frozen=True)
class Whitened:
    """Whitened strain.

    Attributes:
        strain: Whitened strain, unit variance in noise, float64, [rows, ifos, size].
        start: Index of its first sample in the strain that was whitened.
        psds: One-sided PSDs, strain²/Hz, [ifos, bins], by the sample at which each fell
            due.
    """

    strain: NDArray[Any]
    start: int
    psds: dict[int, NDArray[Any]]


def whiten(strain: NDArray[Any], geometry: Geometry) -> Whitened:
    """Whiten gap-free strain as the server whitens it in one sequence.

    Args:
        strain: Strain, [rows, ifos, size]; the PSD is estimated from row 0.
        geometry: The analysis.

    Returns:
        The whitened strain. Half of ``fduration`` is missing at either end, where the
        filter would extend beyond the data; no other samples are corrupted.

    Raises:
        StrainError: The strain is shorter than ``psd_refresh_length``.
    """
    size, refresh = strain.shape[-1], geometry.psd_refresh_size
    half = geometry.filter_size // 2
    if size < refresh:
        raise StrainError(
            f"whitening: expected at least {refresh} samples for the first PSD, found "
            f"{size}"
        )
    output = np.full((*strain.shape[:-1], size - 2 * half), np.nan)
    psds = {}
    for due in range(refresh, size + 1, refresh):
        data = strain[0, :, max(0, due - geometry.psd_size) : due].astype(float)
        psds[due] = signal.welch(
            data, geometry.sample_rate, nperseg=geometry.fft_size, average="median"
        )[1]
        # Whitened sample m depends on strain up to sample m + half, and uses the newest
        # PSD whose data end before that sample. Earlier samples use the first PSD.
        begin = max(half, due - half) if due > refresh else half
        end = min(size - half, due + refresh - half)
        taps = _design(psds[due], data.shape[-1], geometry)
        piece = strain[..., begin - half : end + half].astype(float)
        output[..., begin - half : end - half] = signal.oaconvolve(
            piece, taps[None], mode="valid", axes=-1
        )[..., : end - begin]
    return Whitened(output, half, psds)


def _design(psd: NDArray[Any], psd_size: int, geometry: Geometry) -> NDArray[Any]:
    """Design the whitening filter, a truncated inverse ASD: [ifos, filter_size + 1].

    Args:
        psd: One-sided PSDs, [ifos, bins].
        psd_size: Samples from which each PSD is estimated.
        geometry: The analysis.

    Source: B. Allen et al., Phys. Rev. D 85, 122006 (2012), section VII.
    """
    frequencies = np.fft.rfftfreq(geometry.fft_size, 1 / geometry.sample_rate)
    inverse = np.where(frequencies >= geometry.highpass, psd**-0.5, 0)
    inverse[..., -1] = 0
    response = np.fft.fftshift(np.fft.irfft(inverse), axes=-1)
    middle, half = geometry.fft_size // 2, geometry.filter_size // 2
    taps = (
        response[..., middle - half : middle + half + 1]
        if (middle > half)
        else np.concatenate([response, response[..., :1]], axis=-1)
    )
    window = signal.get_window("hann", geometry.filter_size + 1, fftbins=False)
    variance = whitened_variance(psd_size, geometry)
    scaled: NDArray[Any] = taps * window * np.sqrt(2 / geometry.sample_rate / variance)
    return scaled


@functools.cache
def whitened_variance(psd_size: int, geometry: Geometry) -> float:
    """Variance of noise after whitening with the inverse square root of a median PSD.

    It exceeds 1 by the PSD's statistical error. The median of n exponential variables
    is -ln u with u beta-distributed. In the time domain, the autocovariance of its
    relative error over bins is a weight on the impulse response.

    Args:
        psd_size: Samples from which the PSD is estimated.
        geometry: The analysis.
    """
    count = 2 * psd_size // geometry.fft_size - 1
    median = stats.beta((count + 1) / 2, (count + 1) / 2)
    bias = sum((-1) ** i / (i + 1) for i in range(count))
    inverse = bias * median.expect(lambda u: -1 / np.log(u))
    mean = np.sqrt(bias) * median.expect(lambda u: (-np.log(u)) ** -0.5)
    hann = signal.get_window("hann", geometry.fft_size)
    # Correlation of the powers of two bins, from the window's square in time.
    overlap = np.abs(np.fft.fft(hann**2)) ** 2
    medians = [_median_correlation(power) for power in overlap / overlap[0]]
    weight = np.fft.fft(medians).real / geometry.fft_size
    window = signal.get_window("hann", geometry.filter_size + 1, fftbins=False)
    half = geometry.filter_size // 2
    share = (window**2 * weight[np.arange(-half, half + 1)]).sum()
    return float(mean**2 + (inverse - mean**2) * share)


def _median_correlation(correlation: float) -> float:
    """Correlation of two bins' median powers, from the correlation of their powers.

    For many periodograms, it is the correlation of the numbers of powers below the
    median, ln 2. Given one bin's power, the other's has a noncentral chi-squared
    distribution. The integral is evaluated by quadrature.
    """
    if correlation < 1e-12:
        return 0.0
    if correlation > 1 - 1e-12:
        return 1.0
    median, rest = np.log(2), 1 - correlation

    def below(power: float) -> float:
        """Density of one power, times the probability that the other is below ln 2."""
        other = stats.ncx2(2, 2 * correlation * power / rest)
        return float(np.exp(-power) * other.cdf(2 * median / rest))

    return float(4 * integrate.quad(below, 0, median)[0] - 1)


def score(
    strain: NDArray[Any],
    geometry: Geometry,
    network: Sliding,
    peak_offset_size: float = 0.0,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Score gap-free strain as the server scores it in one sequence.

    Args:
        strain: Strain, [rows, ifos, size]; the PSD is estimated from row 0.
        geometry: The analysis.
        network: The network, in evaluation mode.
        peak_offset_size: Samples from the start of the loudest frame to the merger.

    Returns:
        Scores, logits, float32 [rows, strides], NaN where not valid; the delays by
        which each score's right edge lags the estimated merger, s, likewise; and
        validity, bool [strides].
    """
    whitened = whiten(strain, geometry)
    strides = strain.shape[-1] // geometry.stride_size
    scores = np.full((strain.shape[0], strides), np.nan, np.float32)
    delays = scores.copy()
    valid = np.arange(strides) >= geometry.warmup_strides
    half = geometry.filter_size // 2
    first = (geometry.warmup_strides + 1) * geometry.stride_size - half
    begin = first - geometry.kernel_size - whitened.start
    with torch.no_grad():
        dense = torch.from_numpy(whitened.strain[..., begin:]).float()
        score, peak = network.head(network.features(dense))
    scores[:, valid] = score.numpy()[:, : valid.sum()]
    # The kernel starts a kernel length and half a filter before the right edge.
    merger_size = peak.numpy()[:, : valid.sum()] * geometry.frame_size
    lag_size = geometry.kernel_size + half - merger_size - peak_offset_size
    delays[:, valid] = lag_size / geometry.sample_rate
    return scores, delays, valid

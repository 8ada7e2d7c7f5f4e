"""The best that can be done: matched filters in stationary Gaussian noise.

Two limits, for the same false-positive rate a window as the network's:

- *known signal*: everything about the signal is known but whether it is there. Its
  filter's output is a unit Gaussian, moved by the SNR if the signal is there (Neyman
  and Pearson's test), so that ``P(found) = Φ(SNR - Φ⁻¹(1 - rate))``;
- *matched filter*: masses and spins are known; the time within the window, each
  detector's phase and amplitude are not. The largest sum of the detectors' ``|z|²``,
  at times at which light can have travelled from the first detector to each other one,
  is compared with a threshold from noise (Allen et al., arXiv:gr-qc/0509116, sections
  III and IV, for one detector; the sum of squares for several is that of Pai et al.,
  arXiv:gr-qc/0009078, with the detectors' amplitudes free).

The noise's spectrum is known to these filters, which see the whole signal; the network
estimates the one from up to 64 s, and sees no more of the other than its window holds.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from chirpwatch.geometry import Geometry
from train.data.curves import read_curve
from train.data.signals import (
    antenna_amplitudes,
    arrival_delays,
    face_on_waveforms,
    light_travel_lengths,
    sky,
)
from train.deployment import LEAST_EVENTS

TEMPLATE_LENGTH = 4.0
NOISE_LENGTH = 32.0
"""Length of the noise that is filtered at once, s."""

TAIL_SHARE = 0.005
"""Share of the loudest noise windows that the tail is fitted to."""

SIGNAL_BATCH = 500


def known_signal(snr: np.ndarray, rate: float) -> np.ndarray:
    """Share found where all but the signal's presence is known.

    Args:
        snr: Network SNR, [n].
        rate: False-positive rate a window.

    Returns:
        Share of signals found, [n].
    """
    share: np.ndarray = stats.norm.cdf(snr - stats.norm.isf(rate))
    return share


@dataclass(frozen=True)
class Threshold:
    """Statistic that a false-positive rate belongs to.

    Attributes:
        value: Of the detectors' ``|z|²``, added.
        fitted: Whether it comes from the fit to the tail: fewer than
            :data:`train.deployment.LEAST_EVENTS` noise windows are as loud.
    """

    value: float
    fitted: bool


def tail_threshold(statistics: np.ndarray, rate: float) -> Threshold:
    """Threshold at a rate, by counting, or by an exponential tail where too few are.

    The squared SNR of noise falls as ``exp(-x / 2)`` times powers of x, so that its
    tail is exponential over the few units between a rate and the next; the scale is
    the mean excess over the fitted part, the most likely one.

    Args:
        statistics: Squared SNR of noise windows, [n].
        rate: False-positive rate a window.

    Returns:
        The threshold.
    """
    loudest = np.sort(statistics)[::-1]
    above = rate * len(loudest)
    if above >= LEAST_EVENTS:
        return Threshold(float(loudest[int(above)]), False)
    count = max(2, int(TAIL_SHARE * len(loudest)))
    scale = float(np.mean(loudest[:count] - loudest[count]))
    return Threshold(float(loudest[count] + scale * math.log(count / above)), True)


class MatchedFilter:
    """The filter of one kind of merger in the detectors' noise.

    Args:
        geometry: Detectors, rate, and the frequency from which SNR is counted.
        masses: Heavier and lighter, detector frame, solar masses.
        run: Observing run whose noise curves are used.
        window_length: Times that the merger may have, s.
        seed: Seed of noise and orientations.
    """

    def __init__(
        self,
        geometry: Geometry,
        masses: tuple[float, float],
        run: str,
        window_length: float,
        seed: int,
    ) -> None:
        self.geometry, self.window_length = geometry, window_length
        self.generator = torch.Generator().manual_seed(seed)
        rate = geometry.sample_rate
        size, merger = round(TEMPLATE_LENGTH * rate), round(3.5 * rate)
        heavier, lighter = (torch.tensor([mass]) for mass in masses)
        zero = torch.zeros(1)
        wave = face_on_waveforms(heavier, lighter, zero, zero, size, merger, rate)[0]
        frequencies = np.fft.rfftfreq(size, 1 / rate)
        power = []
        for ifo in geometry.ifos:
            curve = read_curve(run, ifo, sample_rate=rate)
            grid = np.linspace(0, rate / 2, len(curve))
            spectrum = np.abs(np.fft.rfft(wave.numpy())) / np.interp(
                frequencies, grid, curve
            )
            spectrum[frequencies < geometry.highpass] = 0
            power.append(spectrum**2)
        # Which detector sees how much of a face-on merger, for the same distance.
        self.weights = torch.tensor(np.array([one.sum() for one in power]))
        self.density = [one / one.sum() for one in power]
        self.frequencies = frequencies
        # Of light on its way from the first detector, whole samples.
        lengths = light_travel_lengths(geometry.ifos)[0] * rate
        self.reaches = [math.ceil(length) for length in lengths.tolist()]

    def _shape(self, ifo: int, size: int) -> Tensor:
        """The normed template's power at each bin of a complex series, [size]."""
        bins = np.fft.fftfreq(size, 1 / self.geometry.sample_rate)
        density = np.interp(bins, self.frequencies, self.density[ifo], left=0, right=0)
        density[bins <= 0] = 0
        return torch.from_numpy(density / density.sum())

    def _noise(self, rows: int, size: int) -> Tensor:
        """The filter's output in noise, complex: unit variance each part.

        Returns:
            [rows, ifos, size].
        """
        series = []
        for ifo in range(len(self.geometry.ifos)):
            shape = torch.sqrt(self._shape(ifo, size) * size).float()
            white = torch.randn(rows, size, 2, generator=self.generator)
            series.append(
                torch.fft.ifft(torch.view_as_complex(white) * shape, norm="ortho")
            )
        return torch.stack(series, 1)

    def noise_statistics(self, windows: int) -> np.ndarray:
        """Squared SNR of noise windows.

        Args:
            windows: How many.

        Returns:
            Largest sum of the detectors' ``|z|²`` of each, [windows].
        """
        rate = self.geometry.sample_rate
        window_size = round(self.window_length * rate)
        each = int(NOISE_LENGTH * rate) // window_size - 1
        result = []
        for _ in range(math.ceil(windows / each)):
            series = self._noise(1, round(NOISE_LENGTH * rate))[0]
            total = self._combine(series.abs().square())
            result.append(
                total[: each * window_size].reshape(each, window_size).max(1).values
            )
        statistics: np.ndarray = torch.cat(result)[:windows].numpy()
        return statistics

    def _combine(self, power: Tensor) -> Tensor:
        """Add to the first detector's power the others' loudest within light travel.

        Args:
            power: ``|z|²``, [..., ifos, size].

        Returns:
            [..., size].
        """
        total = power[..., 0, :]
        for i, reach in enumerate(self.reaches[1:], start=1):
            total = total + torch.nn.functional.max_pool1d(
                power[..., i : i + 1, :], 2 * reach + 1, 1, padding=reach
            ).squeeze(-2)
        return total

    def signal_statistics(self, n: int, snrs: np.ndarray) -> np.ndarray:
        """Squared SNR of windows with a merger, sky and orientation isotropic.

        Args:
            n: Mergers, the same ones at each SNR, in the same noise.
            snrs: Network SNRs, [k].

        Returns:
            Largest sum of the detectors' ``|z|²`` of each window, [k, n].
        """
        rate, ifos = self.geometry.sample_rate, self.geometry.ifos
        window_size = round(self.window_length * rate)
        # A power of two, with room for the delays on both sides of the window.
        size = 2 ** math.ceil(math.log2(2 * window_size))
        start = (size - window_size) // 2
        bins = torch.fft.fftfreq(size, 1 / rate, dtype=torch.float64)
        result = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=self.generator)))
            for first in range(0, n, SIGNAL_BATCH):
                rows = min(SIGNAL_BATCH, n - first)
                angles = sky(rows)
                factors = antenna_amplitudes(angles, ifos)
                sizes = (factors.abs().square() * self.weights).sqrt()
                shares = factors * self.weights.sqrt() / sizes.norm(dim=1)[:, None]
                delays = arrival_delays(angles, ifos)
                # At the first detector the merger lies within the window.
                delays = delays - delays[:, :1]
                times = start / rate + self.window_length * torch.rand(rows, 1) + delays
                noise = self._noise(rows, size)
                waves = torch.stack(
                    [
                        torch.fft.ifft(
                            self._shape(ifo, size)
                            * size
                            * torch.exp(-2j * torch.pi * bins * times[:, ifo, None])
                        )
                        * shares[:, ifo, None]
                        for ifo in range(len(ifos))
                    ],
                    1,
                ).to(torch.complex64)
                window = slice(start, start + window_size)
                result.append(
                    torch.stack(
                        [
                            self._combine((noise + snr * waves).abs().square())[
                                :, window
                            ]
                            .max(1)
                            .values
                            for snr in snrs.tolist()
                        ]
                    )
                )
        statistics: np.ndarray = torch.cat(result, 1).numpy()
        return statistics


def optimal_curves(
    geometry: Geometry,
    masses: tuple[tuple[float, float], ...],
    rates: tuple[float, ...],
    snrs: np.ndarray,
    *,
    run: str,
    window_length: float,
    seed: int,
    noise_windows: int,
    signals: int,
) -> dict[str, Any]:
    """Shares that the two limits find, for each pair of masses.

    Args:
        geometry: The analysis.
        masses: Heavier and lighter, detector frame, solar masses.
        rates: False-positive rates a window.
        snrs: Network SNRs, increasing, [k].
        run: Observing run whose noise curves are used.
        window_length: Times that the merger may have within a window, s.
        seed: Seed of noise and orientations.
        noise_windows: Noise windows of each pair.
        signals: Mergers of each pair.

    Returns:
        JSON-ready figures: ``snr``, ``known`` (for each rate a list [k]), and
        ``matched``: for each pair ``mass_1``, ``mass_2``, ``found`` (for each rate a
        list [k]), ``fitted`` (the rates whose threshold comes from the fitted tail).
    """
    matched = []
    for index, pair in enumerate(masses):
        optimum = MatchedFilter(geometry, pair, run, window_length, seed + index)
        noise = optimum.noise_statistics(noise_windows)
        found = optimum.signal_statistics(signals, snrs)
        limits = {rate: tail_threshold(noise, rate) for rate in rates}
        matched.append(
            {
                "mass_1": pair[0],
                "mass_2": pair[1],
                "found": {
                    str(rate): (found > limit.value).mean(1).tolist()
                    for rate, limit in limits.items()
                },
                "fitted": [str(rate) for rate, one in limits.items() if one.fitted],
            }
        )
    return {
        "snr": snrs.tolist(),
        "known": {str(rate): known_signal(snrs, rate).tolist() for rate in rates},
        "matched": matched,
        "noise_windows": noise_windows,
        "signals": signals,
        "window_length": window_length,
    }

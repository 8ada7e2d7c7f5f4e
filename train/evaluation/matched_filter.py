"""Detection statistics of a matched filter with known masses and a known PSD."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chirpwatch.geometry import Geometry
from chirpwatch.train.data.noise.curves import read_curve
from chirpwatch.train.data.signals.waveforms import (
    antenna_amplitudes,
    arrival_delays,
    face_on_waveforms,
    light_travel_lengths,
    sky,
)

TEMPLATE_LENGTH = 4.0
NOISE_LENGTH = 32.0
"""Length of the noise filtered at once, s."""

SIGNAL_BATCH = 500


class MatchedFilter:
    """Matched filter for non-spinning mergers of given masses, in all detectors.

    Args:
        geometry: Detectors, sample rate and highpass.
        masses: Heavier and lighter mass, detector frame, solar masses.
        run: Observing run of the noise curves.
        window_length: Range of merger times that the filter is maximised over, s.
        seed: Seed of noise, sky positions and orientations.
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
        # Relative squared SNR of a face-on merger in each detector.
        self.weights = torch.tensor(np.array([spectrum.sum() for spectrum in power]))
        self.density = [spectrum / spectrum.sum() for spectrum in power]
        self.frequencies = frequencies
        # Light travel from the first detector to each, rounded up to samples.
        lengths = light_travel_lengths(geometry.ifos)[0] * rate
        self.reaches = [math.ceil(length) for length in lengths.tolist()]

    def _shape(self, ifo: int, size: int) -> Tensor:
        """Whitened template's normalised power at positive frequencies, [size].

        Args:
            ifo: Index of the detector.
            size: Samples of the complex time series that it filters.
        """
        bins = np.fft.fftfreq(size, 1 / self.geometry.sample_rate)
        density = np.interp(bins, self.frequencies, self.density[ifo], left=0, right=0)
        density[bins <= 0] = 0
        return torch.from_numpy(density / density.sum())

    def _noise(self, rows: int, size: int) -> Tensor:
        """Draw complex filter outputs in noise; both parts have unit variance.

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

    def noise_statistics(self, windows: int) -> NDArray[Any]:
        """Draw the statistic in noise windows.

        Args:
            windows: Number of windows.

        Returns:
            Largest sum of the detectors' ``|z|²`` in each window, [windows].
        """
        rate = self.geometry.sample_rate
        window_size = round(self.window_length * rate)
        count = int(NOISE_LENGTH * rate) // window_size - 1
        result = []
        for _ in range(math.ceil(windows / count)):
            series = self._noise(1, round(NOISE_LENGTH * rate))[0]
            total = self._combine(series.abs().square())
            result.append(
                total[: count * window_size].reshape(count, window_size).max(1).values
            )
        statistics: NDArray[Any] = torch.cat(result)[:windows].numpy()
        return statistics

    def _combine(self, power: Tensor) -> Tensor:
        """Sum ``|z|²`` over detectors, each maximised within the light travel time.

        Args:
            power: ``|z|²``, [..., ifos, size].

        Returns:
            Sum by time at the first detector, [..., size].
        """
        total = power[..., 0, :]
        for i, reach in enumerate(self.reaches[1:], start=1):
            total = total + torch.nn.functional.max_pool1d(
                power[..., i : i + 1, :], 2 * reach + 1, 1, padding=reach
            ).squeeze(-2)
        return total

    def signal_statistics(self, n: int, snrs: NDArray[Any]) -> NDArray[Any]:
        """Draw the statistic in windows with a merger of isotropic orientation.

        Args:
            n: Number of mergers. All SNRs share the same mergers and noise.
            snrs: Network SNRs, [k].

        Returns:
            Largest sum of the detectors' ``|z|²`` in each window, [k, n].
        """
        rate, ifos = self.geometry.sample_rate, self.geometry.ifos
        window_size = round(self.window_length * rate)
        # A power of two, with a margin for the delays on both sides of the window.
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
                # The window is that of the merger's time at the first detector.
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
        statistics: NDArray[Any] = torch.cat(result, 1).numpy()
        return statistics

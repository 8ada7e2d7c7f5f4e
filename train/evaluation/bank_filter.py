"""Detection statistic of a template bank: likelihood averaged over its population."""

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
from chirpwatch.train.networks.bank import Bank

BANK_LENGTH = 8.0
"""Length of the templates, and of the noise blocks that they filter, s."""

BANK_BLOCKS = 40
"""Noise blocks of each detector held in memory."""

UPSAMPLING = 8
"""Possible merger times per filter output."""

BANK_SLIDES = 8
"""Pairings of each detector's noise blocks with those of the others.

Few, since a loud fluctuation in one detector is loud in all its pairings.
"""

BANK_BATCH = 64
"""Templates filtered at once."""


class BankFilters:
    """Search with all templates of a bank; its statistic is their mean likelihood.

    Args:
        geometry: Detectors, sample rate and highpass.
        bank: Templates, and the share of the population that each represents.
        run: Observing run of the noise curves.
        window_length: Range of merger times that the likelihood is averaged over, s.
        seed: Seed of noise, sky positions and orientations.

    Attributes:
        step: Strain samples per filter output.
    """

    step = 2

    def __init__(
        self, geometry: Geometry, bank: Bank, run: str, window_length: float, seed: int
    ) -> None:
        self.geometry, self.run, self.window_length = geometry, run, window_length
        self.generator = torch.Generator().manual_seed(seed)
        self.rate = geometry.sample_rate / self.step
        self.size = round(BANK_LENGTH * geometry.sample_rate)
        self.templates = self._whitened(bank.masses, bank.spins)
        self.templates /= self.templates.norm(dim=-1, keepdim=True)
        shares = torch.from_numpy(np.asarray(bank.share, dtype=np.float32))
        self.prior = shares / shares.sum()
        lengths = light_travel_lengths(geometry.ifos)[0] * self.rate
        self.reaches = [math.ceil(length) for length in lengths.tolist()]

    def _whitened(self, masses: NDArray[Any], spins: NDArray[Any]) -> Tensor:
        """Whitened spectra of face-on mergers at time 0, complex, [n, ifos, bins].

        The bins end at half the output rate. The norm over bins is the optimal SNR, up
        to a factor common to all mergers and detectors.
        """
        rate, ifos = self.geometry.sample_rate, self.geometry.ifos
        merger = self.size - rate // 2
        (m1, m2), (s1, s2) = (
            torch.as_tensor(np.array(x), dtype=torch.float64).T for x in (masses, spins)
        )
        waves = face_on_waveforms(m1, m2, s1, s2, self.size, merger, rate)
        bins = self.size // 2 // self.step
        frequencies = np.fft.rfftfreq(self.size, 1 / rate)[:bins]
        spectra = torch.fft.rfft(waves.double().roll(-merger, -1))[:, :bins]
        whitened = []
        for ifo in ifos:
            curve = read_curve(self.run, ifo, sample_rate=rate)
            grid = np.linspace(0, rate / 2, len(curve))
            asd = np.interp(frequencies, grid, curve)
            weights = np.where(frequencies >= self.geometry.highpass, 1 / asd, 0)
            whitened.append(spectra * torch.from_numpy(weights))
        result = torch.stack(whitened, 1)
        # Any common factor will do; this one keeps values in single precision's range.
        return (result / result.abs().max()).to(torch.complex64)

    def _noise(self) -> Tensor:
        """Draw a white noise spectrum; both parts have unit variance, [bins]."""
        shape = (self.templates.shape[-1], 2)
        return torch.view_as_complex(torch.randn(shape, generator=self.generator))

    def _outputs(self, spectrum: Tensor, ifo: int, upsampling: int = 1) -> Tensor:
        """Filter one detector's strain with all templates.

        Args:
            spectrum: Spectrum of whitened strain, [bins].
            ifo: Index of the detector.
            upsampling: Factor by which the output rate is raised.

        Returns:
            Complex outputs, periodic in time, [templates, time]. In noise both parts
            have unit variance.
        """
        # Only positive frequencies, so that the output is the analytic signal.
        size = upsampling * self.size // self.step
        return torch.cat(
            [
                torch.fft.ifft(spectrum * filters.conj(), size, dim=-1) * size
                for filters in torch.split(self.templates[:, ifo], BANK_BATCH)
            ]
        )

    def _single(self, outputs: Tensor, ifo: int) -> tuple[Tensor, Tensor]:
        """One detector's likelihoods by merger time at the first detector.

        Further detectors' likelihoods are averaged over the light travel time.

        Args:
            outputs: Outputs of all templates, periodic in time, [templates, time].
            ifo: Index of the detector.

        Returns:
            Likelihoods divided by their maximum, [templates, time], and the maximum's
            logarithm.
        """
        logarithms = outputs.abs().square() / 2
        largest = logarithms.max()
        series, reach = (logarithms - largest).exp(), self.reaches[ifo]
        if ifo:
            circle = torch.cat([series[:, -reach:], series, series[:, :reach]], 1)
            series = torch.nn.functional.avg_pool1d(circle, 2 * reach + 1, 1)
        return series, largest

    def _statistic(self, single: list[tuple[Tensor, Tensor]], size: int) -> Tensor:
        """Logarithm of the mean likelihood in each window of ``size`` outputs."""
        joint = self.prior[:, None] * single[0][0]
        for series, _ in single[1:]:
            joint = joint * series
        total = joint.sum(0)
        windows = total[: len(total) // size * size].reshape(-1, size).mean(1)
        factors = [largest for _, largest in single]
        return windows.clamp(min=1e-37).log() + torch.stack(factors).sum()

    def noise_statistics(self, windows: int) -> NDArray[Any]:
        """Draw the statistic in noise windows; noise blocks are reused in timeslides.

        Args:
            windows: Number of windows.

        Returns:
            Logarithm of the bank's mean likelihood in each window, [windows].
        """
        ifos = len(self.geometry.ifos)
        size = round(self.window_length * self.rate)
        count = (self.size // self.step) // size
        result: list[Tensor] = []
        while sum(map(len, result)) < windows:
            needed = (windows - sum(map(len, result))) / count
            slides = 1 if ifos == 1 else BANK_SLIDES
            blocks = min(BANK_BLOCKS, max(slides * ifos, math.ceil(needed / slides)))
            single = [
                [
                    self._single(self._outputs(self._noise(), i), i)
                    for _ in range(blocks)
                ]
                for i in range(ifos)
            ]
            for slide in range(slides):
                result += [
                    self._statistic(
                        [
                            series[(block + i * slide) % blocks]
                            for i, series in enumerate(single)
                        ],
                        size,
                    )
                    for block in range(blocks)
                ]
        statistics: NDArray[Any] = torch.cat(result)[:windows].numpy()
        return statistics

    def signal_statistics(
        self, masses: tuple[float, float], n: int, snrs: NDArray[Any]
    ) -> NDArray[Any]:
        """Draw the statistic in windows with a merger of isotropic orientation.

        Args:
            masses: Heavier and lighter mass, detector frame, solar masses; no spins.
            n: Number of mergers. All SNRs share the same mergers and noise.
            snrs: Network SNRs, [k].

        Returns:
            Logarithm of the bank's mean likelihood in each window, [k, n].
        """
        ifos, reach = self.geometry.ifos, max(self.reaches)
        wave = self._whitened(np.array([masses]), np.zeros((1, 2)))[0]
        size = round(self.window_length * self.rate)
        count = (self.size // self.step) // size - 2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=self.generator)))
            angles, fractions = sky(n), torch.rand(n, 1)
        factors = antenna_amplitudes(angles, ifos)
        sizes = (factors.abs() * wave.norm(dim=-1)).norm(dim=1, keepdim=True)
        factors = (factors / sizes).to(torch.complex64)
        delays = arrival_delays(angles, ifos)
        # The window is that of the merger's time at the first detector.
        times = self.window_length * fractions + delays - delays[:, :1]
        # Templates' response to the merger alone, upsampled, with the merger in the
        # middle, so that any window around it can be cut out.
        fine = UPSAMPLING * self.rate
        merger = round((2 * self.window_length + reach / self.rate) * fine)
        responses = [
            self._outputs(wave[i], i, UPSAMPLING).roll(merger, -1)[:, : 2 * merger]
            for i in range(len(ifos))
        ]
        result = np.empty((len(snrs), n))
        for row in range(n):
            if row % count == 0:
                noise = [self._outputs(self._noise(), i) for i in range(len(ifos))]
            start = (1 + row % count) * size - reach
            noise_cut, signal = [], []
            for i in range(len(ifos)):
                first = merger - round(
                    (float(times[row, i]) + reach / self.rate) * fine
                )
                stop = first + UPSAMPLING * (size + 2 * reach)
                signal.append(responses[i][:, first:stop:UPSAMPLING] * factors[row, i])
                noise_cut.append(noise[i][:, start : start + size + 2 * reach])
            for k, snr in enumerate(snrs.tolist()):
                single = [
                    self._single(noise_cut[i] + snr * signal[i], i)
                    for i in range(len(ifos))
                ]
                inside = [(x[:, reach : reach + size], y) for x, y in single]
                result[k, row] = float(self._statistic(inside, size))
        return result

"""Matched filters of a whole bank: likelihoods added as the population has them."""

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
"""Length of a bank's templates, and of the noise that they filter at once, s."""

BANK_BLOCKS = 40
"""Stretches of noise of each detector that are kept at once."""

FINENESS = 8
"""Places between two outputs at which a bank's mergers may lie."""

BANK_SLIDES = 8
"""Stretches of one detector's noise that each of another's meets: a fluctuation in one
detector is loud in all of them."""

BANK_BATCH = 64
"""Templates that filter at once."""


class BankFilters:
    """The filters of a whole bank in the detectors' noise, as one search.

    Args:
        geometry: Detectors, rate, and the frequency from which SNR is counted.
        bank: Templates, and the share of the population that each stands for.
        run: Observing run whose noise curves are used.
        window_length: Times that the merger may have, s.
        seed: Seed of noise and orientations.

    Attributes:
        step: Samples of the strain between two of the filters' outputs.
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

        Up to half of the outputs' rate; the noise is white of unit variance in each of
        them, and the norm is the optimal SNR, up to a factor common to all.
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
        # Any common factor will do: numbers that single precision can hold.
        return (result / result.abs().max()).to(torch.complex64)

    def _noise(self) -> Tensor:
        """Spectrum of white noise, complex, unit variance each part, [bins]."""
        shape = (self.templates.shape[-1], 2)
        return torch.view_as_complex(torch.randn(shape, generator=self.generator))

    def _outputs(self, spectrum: Tensor, ifo: int, fineness: int = 1) -> Tensor:
        """Outputs of all templates, of unit variance each part in noise.

        Args:
            spectrum: Of whitened strain of one detector, [bins].
            ifo: Which.
            fineness: Outputs for each one of the filters.

        Returns:
            Complex, circular in time, [templates, time].
        """
        # Positive frequencies alone: the series is analytic.
        size = fineness * self.size // self.step
        return torch.cat(
            [
                torch.fft.ifft(spectrum * filters.conj(), size, dim=-1) * size
                for filters in torch.split(self.templates[:, ifo], BANK_BATCH)
            ]
        )

    def _single(self, outputs: Tensor, ifo: int) -> tuple[Tensor, Tensor]:
        """One detector's likelihoods at the first one's times.

        Args:
            outputs: Of all templates, [templates, time]; the time is a circle.
            ifo: Which detector.

        Returns:
            Likelihoods over a common factor, [templates, time], and its logarithm.
        """
        logarithms = outputs.abs().square() / 2
        largest = logarithms.max()
        series, reach = (logarithms - largest).exp(), self.reaches[ifo]
        if ifo:
            circle = torch.cat([series[:, -reach:], series, series[:, :reach]], 1)
            series = torch.nn.functional.avg_pool1d(circle, 2 * reach + 1, 1)
        return series, largest

    def _statistic(self, single: list[tuple[Tensor, Tensor]], size: int) -> Tensor:
        """Logarithm of the mean likelihood within pieces of ``size`` outputs."""
        joint = self.prior[:, None] * single[0][0]
        for series, _ in single[1:]:
            joint = joint * series
        total = joint.sum(0)
        pieces = total[: len(total) // size * size].reshape(-1, size).mean(1)
        factors = [largest for _, largest in single]
        return pieces.clamp(min=1e-37).log() + torch.stack(factors).sum()

    def noise_statistics(self, windows: int) -> NDArray[Any]:
        """Statistics of noise windows, with detectors shifted against each other.

        Args:
            windows: How many.

        Returns:
            Logarithm of the bank's mean likelihood in each, [windows].
        """
        ifos = len(self.geometry.ifos)
        size = round(self.window_length * self.rate)
        each = (self.size // self.step) // size
        result: list[Tensor] = []
        while sum(map(len, result)) < windows:
            left = (windows - sum(map(len, result))) / each
            slides = 1 if ifos == 1 else BANK_SLIDES
            blocks = min(BANK_BLOCKS, max(slides * ifos, math.ceil(left / slides)))
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
                            one[(block + i * slide) % blocks]
                            for i, one in enumerate(single)
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
        """Statistics of windows with a merger, sky and orientation isotropic.

        Args:
            masses: Heavier and lighter, detector frame, solar masses; no spins.
            n: Mergers, the same ones at each SNR, in the same noise.
            snrs: Network SNRs, [k].

        Returns:
            Logarithm of the bank's mean likelihood in each window, [k, n].
        """
        ifos, reach = self.geometry.ifos, max(self.reaches)
        wave = self._whitened(np.array([masses]), np.zeros((1, 2)))[0]
        size = round(self.window_length * self.rate)
        each = (self.size // self.step) // size - 2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=self.generator)))
            angles, places = sky(n), torch.rand(n, 1)
        factors = antenna_amplitudes(angles, ifos)
        sizes = (factors.abs() * wave.norm(dim=-1)).norm(dim=1, keepdim=True)
        factors = (factors / sizes).to(torch.complex64)
        delays = arrival_delays(angles, ifos)
        # At the first detector the merger lies within the window.
        times = self.window_length * places + delays - delays[:, :1]
        # What each template makes of the merger, from where it may begin to its end.
        fine = FINENESS * self.rate
        merger = round((2 * self.window_length + reach / self.rate) * fine)
        responses = [
            self._outputs(wave[i], i, FINENESS).roll(merger, -1)[:, : 2 * merger]
            for i in range(len(ifos))
        ]
        result = np.empty((len(snrs), n))
        for row in range(n):
            if row % each == 0:
                noise = [self._outputs(self._noise(), i) for i in range(len(ifos))]
            begin = (1 + row % each) * size - reach
            seen, added = [], []
            for i in range(len(ifos)):
                first = merger - round(
                    (float(times[row, i]) + reach / self.rate) * fine
                )
                stop = first + FINENESS * (size + 2 * reach)
                added.append(responses[i][:, first:stop:FINENESS] * factors[row, i])
                seen.append(noise[i][:, begin : begin + size + 2 * reach])
            for k, snr in enumerate(snrs.tolist()):
                single = [
                    self._single(seen[i] + snr * added[i], i) for i in range(len(ifos))
                ]
                inside = [(x[:, reach : reach + size], y) for x, y in single]
                result[k, row] = float(self._statistic(inside, size))
        return result

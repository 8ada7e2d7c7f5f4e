"""The best that can be done: matched filters in stationary Gaussian noise.

Three limits, for the same false-positive rate a window as the network's:

- *known signal*: everything about the signal is known but whether it is there. Its
  filter's output is a unit Gaussian, moved by the SNR if the signal is there (Neyman
  and Pearson's test), so that ``P(found) = Φ(SNR - Φ⁻¹(1 - rate))``;
- *matched filter*: masses and spins are known; the time within the window, each
  detector's phase and amplitude are not. The largest sum of the detectors' ``|z|²``,
  at times at which light can have travelled from the first detector to each other one,
  is compared with a threshold from noise (Allen et al., arXiv:gr-qc/0509116, sections
  III and IV, for one detector; the sum of squares for several is that of Pai et al.,
  arXiv:gr-qc/0009078, with the detectors' amplitudes free);
- *bank*: masses and spins are unknown as well. All templates of a bank add their
  likelihoods, each weighted by its share of a population: the logarithm of the sum over
  templates, and of the mean over times within the window, of ``exp(|z|²/2)`` of the
  first detector times its mean within the light's travel in each other one. This is
  the limit to compare a search for that population with.

The noise's spectrum is known to these filters, which see the whole signal; the network
estimates the one from up to 64 s, and sees no more of the other than its window holds.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
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
from chirpwatch.train.evaluation.deployment import LEAST_EVENTS
from chirpwatch.train.networks.bank import (
    Bank,
    shipped_bank,
)

SNRS, BANK_SNRS = np.arange(3.0, 20.5, 0.5), np.arange(3.0, 15.0)
"""Network SNRs of the single template's curves, and of the bank's."""

TEMPLATE_LENGTH = 4.0
NOISE_LENGTH = 32.0
"""Length of the noise that is filtered at once, s."""

TAIL_SHARE = 0.005
"""Share of the loudest noise windows that the tail is fitted to."""

SIGNAL_BATCH = 500

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


def known_signal(snr: NDArray[Any], rate: float) -> NDArray[Any]:
    """Share found where all but the signal's presence is known.

    Args:
        snr: Network SNR, [n].
        rate: False-positive rate a window.

    Returns:
        Share of signals found, [n].
    """
    share: NDArray[Any] = stats.norm.cdf(snr - stats.norm.isf(rate))
    return share


@dataclass(frozen=True)
class Threshold:
    """Statistic that a false-positive rate belongs to.

    Attributes:
        value: Of the detectors' ``|z|²``, added.
        fitted: Whether it comes from the fit to the tail: fewer than
            ``LEAST_EVENTS`` noise windows are as loud.
    """

    value: float
    fitted: bool


def tail_threshold(statistics: NDArray[Any], rate: float) -> Threshold:
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

    def noise_statistics(self, windows: int) -> NDArray[Any]:
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
        statistics: NDArray[Any] = torch.cat(result)[:windows].numpy()
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

    def signal_statistics(self, n: int, snrs: NDArray[Any]) -> NDArray[Any]:
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
        statistics: NDArray[Any] = torch.cat(result, 1).numpy()
        return statistics


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


def optimal_curves(
    geometry: Geometry,
    masses: tuple[tuple[float, float], ...],
    rates: tuple[float, ...],
    *,
    run: str,
    window_length: float,
    seed: int,
    noise_windows: int,
    signals: int,
    bank_windows: int,
    bank_signals: int,
) -> dict[str, Any]:
    """Shares that the limits find, for each pair of masses.

    Args:
        geometry: The analysis.
        masses: Heavier and lighter, detector frame, solar masses.
        rates: False-positive rates a window.
        run: Observing run whose noise curves are used.
        window_length: Times that the merger may have within a window, s.
        seed: Seed of noise and orientations.
        noise_windows: Noise windows of each pair.
        signals: Mergers of each pair.
        bank_windows: Noise windows of the bank that comes with the project; 0 leaves
            the bank out.
        bank_signals: Its mergers of each pair.

    Returns:
        JSON-ready figures: ``snr`` [k], ``known`` (for each rate a list [k]), and
        ``matched``: for each pair ``mass_1``, ``mass_2``, ``found`` (for each rate a
        list [k]), ``fitted`` (the rates whose threshold comes from the fitted tail);
        and ``bank``, the same at ``bank_snr``.
    """
    matched, found = [], []
    for index, pair in enumerate(masses):
        optimum = MatchedFilter(geometry, pair, run, window_length, seed + index)
        noise = optimum.noise_statistics(noise_windows)
        statistics = optimum.signal_statistics(signals, SNRS)
        matched.append(_shares(pair, rates, noise, statistics))
    if bank_windows:
        bank = BankFilters(geometry, shipped_bank(), run, window_length, seed)
        noise = bank.noise_statistics(bank_windows)
        for pair in masses:
            statistics = bank.signal_statistics(pair, bank_signals, BANK_SNRS)
            found.append(_shares(pair, rates, noise, statistics))
    return {
        "snr": SNRS.tolist(),
        "known": {str(rate): known_signal(SNRS, rate).tolist() for rate in rates},
        "matched": matched,
        "noise_windows": noise_windows,
        "signals": signals,
        "window_length": window_length,
        "bank_snr": BANK_SNRS.tolist(),
        "bank": found,
        "bank_noise_windows": bank_windows,
        "bank_signals": bank_signals,
    }


def _shares(
    pair: tuple[float, float],
    rates: tuple[float, ...],
    noise: NDArray[Any],
    statistics: NDArray[Any],
) -> dict[str, Any]:
    """Shares of mergers, [k, n], that exceed the noise's thresholds, JSON-ready."""
    limits = {rate: tail_threshold(noise, rate) for rate in rates}
    return {
        "mass_1": pair[0],
        "mass_2": pair[1],
        "found": {
            str(rate): (statistics > limit.value).mean(1).tolist()
            for rate, limit in limits.items()
        },
        "fitted": [str(rate) for rate, one in limits.items() if one.fitted],
    }

"""Templates on a grid of times, and their matches with signals.

Matches are maximised over phase, and over the times of a filter's outputs. A merger may
fall between two of these: matches are computed for several places there, and half of
the templates may have outputs midway between those of the others. Mergers are compared
as complex analytic series: their modulus does not depend on the phase.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from chirpwatch.errors import ConfigurationError
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.noise.curves import read_curve
from chirpwatch.train.data.signals.waveforms import (
    chirp_mass,
    face_on_waveforms,
)
from chirpwatch.train.networks.bank import (
    AFTER_MERGER_LENGTH,
    OVERSAMPLING,
    SERIES_LENGTH,
    Bank,
    BankSettings,
)

SIGNAL_LENGTH = 8.0
"""Length of a whole signal, s: 5 and 5 solar masses take 5.4 s from 32 Hz on."""

IFOS = ("H1", "L1")
"""Detectors whose noise curves whiten the templates."""

LAG_LENGTH = 0.05
"""Largest time shift between a template and a signal, s."""

WAVEFORM_CHUNK, MATCH_CHUNK = 128, 64


def whitened_spectra(
    masses: NDArray[Any],
    spins: NDArray[Any],
    settings: BankSettings,
    geometry: Geometry,
    length: float = SERIES_LENGTH,
) -> NDArray[Any]:
    """Whiten mergers with the average noise curve.

    Args:
        masses: Heavier and lighter, detector frame, solar masses, [n, 2].
        spins: Dimensionless aligned spins, [n, 2].
        settings: Observing runs whose noise curves are averaged.
        geometry: Sample rate, and the frequency below which spectra are zero.
        length: Length of the series, s; at least 2.

    Returns:
        Spectra, complex64, [n, bins], of series of ``length`` at the sample rate
        (``numpy.fft.irfft``). Their sum of squares is 1. The merger lies 1 s
        (``AFTER_MERGER_LENGTH``) before the end: at ``MERGER_LENGTH`` of a series of
        ``SERIES_LENGTH``.

    Raises:
        StrainError: An observing run has no noise curve.
        ConfigurationError: The noise curves do not reach half the sample rate.
    """
    rate = geometry.sample_rate
    size = round(length * rate)
    weight = whitening(settings, geometry, size)
    result = np.empty((len(masses), size // 2 + 1), np.complex64)
    for rows in _chunks(masses):
        (mass_1, mass_2), (spin_1, spin_2) = (
            torch.from_numpy(columns[rows]).double().T for columns in (masses, spins)
        )
        waves = face_on_waveforms(
            mass_1,
            mass_2,
            spin_1,
            spin_2,
            size,
            round((length - AFTER_MERGER_LENGTH) * rate),
            rate,
        )
        result[rows] = unit_spectra(waves.numpy(), weight)
    return result


def unit_spectra(waves: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """Spectra of whitened series, so scaled that these have a sum of squares of 1.

    Args:
        waves: Strain, [n, size].
        weight: From ``whitening``, [size // 2 + 1].

    Returns:
        complex128, [n, size // 2 + 1].
    """
    spectra = np.fft.rfft(waves) * weight
    # Parseval: no power at 0 Hz, and none at half the sample rate.
    power = 2 / waves.shape[-1] * (np.abs(spectra) ** 2).sum(1)
    scaled: NDArray[Any] = spectra / np.sqrt(power)[:, None]
    return scaled


def whitening(settings: BankSettings, geometry: Geometry, size: int) -> NDArray[Any]:
    """Root of the inverse PSD, averaged over runs and over H1 and L1.

    Args:
        settings: Observing runs.
        geometry: Sample rate, and the frequency below which nothing passes.
        size: Samples of the series.

    Returns:
        Weight of each bin of its spectrum, float64, [size // 2 + 1].
    """
    rate = geometry.sample_rate
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    inverse = []
    for run in settings.runs:
        for ifo in IFOS:
            asd = read_curve(run, ifo, sample_rate=rate)
            grid = np.linspace(0, rate / 2, len(asd))
            inverse.append(np.interp(frequencies, grid, asd) ** -2)
    weight: NDArray[Any] = np.sqrt(np.mean(inverse, 0))
    weight[frequencies < geometry.highpass] = 0
    weight[-1] = 0
    return weight


def analytic(spectra: NDArray[Any]) -> NDArray[Any]:
    """Complex series whose real part a spectrum is that of.

    Args:
        spectra: As from ``whitened_spectra``, [n, bins].

    Returns:
        Analytic series, complex64, [n, 2 * (bins - 1)]: the imaginary part is the
        wave a quarter of a cycle later.
    """
    size = 2 * (spectra.shape[-1] - 1)
    padded = np.zeros((len(spectra), size), np.complex64)
    padded[:, : spectra.shape[-1]] = 2 * spectra
    series: NDArray[Any] = np.fft.ifft(padded).astype(np.complex64)
    return series


@dataclass(frozen=True)
class Grid:
    """Samples on which matches are computed.

    A complex series without negative frequencies needs no more samples a second than
    its largest frequency.

    Args:
        settings: Cut and largest frequency of the templates.
        geometry: Sample rate and highpass.

    Raises:
        ConfigurationError: The settings do not go with the geometry.
    """

    settings: BankSettings
    geometry: Geometry

    def __post_init__(self) -> None:
        top, geometry = self.settings.max_frequency, self.geometry
        if not geometry.highpass < top < geometry.sample_rate / 2:
            raise ConfigurationError(
                f"bank: expected max_frequency between the highpass of "
                f"{geometry.highpass:g} Hz and half the sample rate, "
                f"{geometry.sample_rate / 2:g} Hz; found {top:g} Hz"
            )
        if self.before_size < 1 or self.after_size < 1:
            raise ConfigurationError(
                f"bank: expected before_length and after_length of "
                f"{1 / self.rate:.2g} s or more; found {self.settings}"
            )

    @property
    def step(self) -> int:
        """Samples of the strain for each sample of this grid."""
        return math.ceil(self.geometry.sample_rate / self.settings.max_frequency) - 1

    @property
    def rate(self) -> float:
        """Samples a second, above ``max_frequency``."""
        return self.geometry.sample_rate / self.step

    @property
    def before_size(self) -> int:
        """Samples of a template before its merger."""
        return round(self.settings.before_length * self.rate)

    @property
    def after_size(self) -> int:
        """Samples of a template from its merger on."""
        return round(self.settings.after_length * self.rate)

    @property
    def lag_size(self) -> int:
        """Samples by which a signal is longer than a template, at each end."""
        return round(LAG_LENGTH * self.rate)

    @property
    def fft_size(self) -> int:
        """Samples of a transform that holds such a signal."""
        return int(
            next_fast_len(self.before_size + self.after_size + 2 * self.lag_size)
        )

    def signals(
        self,
        masses: Float[NDArray[Any], "n 2"],
        spins: Float[NDArray[Any], "n 2"],
        length: float,
    ) -> Complex[Tensor, "n time"]:
        """Whitened mergers about their merger, of unit power as a whole.

        Args:
            masses: [n, 2].
            spins: [n, 2].
            length: Of the series that counts as whole, s.

        Returns:
            Analytic series up to ``max_frequency``, complex64, [n, before_size +
            after_size + 2 * lag_size]; the sum of ``|x|²`` is the share of the whole
            signal's SNR² that they hold.
        """
        size = self.before_size + self.after_size + 2 * self.lag_size
        result = torch.empty(len(masses), size, dtype=torch.complex64)
        for rows in _chunks(masses):
            spectra = whitened_spectra(
                masses[rows], spins[rows], self.settings, self.geometry, length
            )
            result[rows] = self.cut(spectra, length)
        return result

    def cut(
        self, spectra: Complex[NDArray[Any], "n bins"], length: float
    ) -> Complex[Tensor, "n time"]:
        """Cut whitened mergers about their merger, and sample them on this grid.

        Args:
            spectra: As from ``whitened_spectra``, complex64, [n, bins].
            length: Of their series, s.

        Returns:
            As from ``signals``.
        """
        merger = round((length - AFTER_MERGER_LENGTH) * self.geometry.sample_rate)
        before, after = (
            self.before_size + self.lag_size,
            self.after_size + self.lag_size,
        )
        samples = merger + self.step * np.arange(-before, after)
        low = spectra.copy()
        low[:, math.floor(self.settings.max_frequency * length) + 1 :] = 0
        return torch.from_numpy(analytic(low)[:, samples] * math.sqrt(self.step / 2))

    def templates(
        self, masses: Float[NDArray[Any], "n 2"], spins: Float[NDArray[Any], "n 2"]
    ) -> Complex[Tensor, "n time"]:
        """Truncated templates of unit power.

        Returns:
            complex64, [n, before_size + after_size].
        """
        signals = self.signals(masses, spins, SERIES_LENGTH)
        cut = signals[:, self.lag_size : -self.lag_size]
        result: Tensor = cut / cut.norm(dim=1, keepdim=True)
        return result

    def transform(self, series: Complex[Tensor, "n time"]) -> Complex[Tensor, "n bins"]:
        """Spectra of signals or templates, [n, fft_size]."""
        result: Tensor = torch.fft.fft(series, self.fft_size)
        return result

    def match(
        self,
        signals: Complex[Tensor, "*n bins"],
        templates: Complex[Tensor, "*#n bins"],
    ) -> Float[Tensor, " oversampling *n"]:
        """Match of signals with templates, from their spectra, over time and phase.

        Args:
            signals: [..., fft_size].
            templates: Broadcast with the signals.

        Returns:
            [OVERSAMPLING, ...]: the best of every ``OVERSAMPLING``-th lag, from the
            first, the second … on. Their maximum is that over all lags.
        """
        size = OVERSAMPLING * self.fft_size
        series = torch.fft.ifft(signals * templates.conj(), size)
        # Within these lags nothing wraps around.
        lags = series[..., : 2 * OVERSAMPLING * self.lag_size].abs()
        result: Tensor = OVERSAMPLING * lags.unflatten(-1, (-1, OVERSAMPLING)).amax(
            -2
        ).movedim(-1, 0)
        return result


def lags_between(shift: int) -> list[int]:
    """Which match is that of a merger 0, 1 … lags after an output."""
    return [(shift - place) % OVERSAMPLING for place in range(OVERSAMPLING)]


def best_matches(
    grid: Grid, signals: Complex[Tensor, "n bins"], bank: Bank
) -> Float[NDArray[Any], "oversampling n"]:
    """Best match of each signal, a spectrum on the grid, over a bank's templates.

    Returns:
        [OVERSAMPLING, n]: for mergers 0, 1 … lags after an output. The mean of a whole
        signal over the lags is its fitting factor (Apostolatos, Phys. Rev. D 52, 605).
    """
    templates = grid.transform(grid.templates(bank.masses, bank.spins))
    shifts = (bank.shift * OVERSAMPLING).astype(int)
    best = torch.zeros(OVERSAMPLING, len(signals))
    # Few signals at once: their series stay in the processor's cache.
    for rows, part in zip(
        best.split(MATCH_CHUNK, 1), signals.split(MATCH_CHUNK), strict=True
    ):
        for template, shift in zip(templates, shifts, strict=True):
            found = grid.match(part, template)[lags_between(shift)]
            torch.maximum(rows, found, out=rows)
    return best.numpy()


def _chunks(masses: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Rows of a few mergers at a time, similar ones together.

    The longest waveform of a batch sets the length of all.
    """
    order = np.argsort(chirp_mass(*masses.T), kind="stable")
    for start in range(0, len(order), WAVEFORM_CHUNK):
        yield order[start : start + WAVEFORM_CHUNK]

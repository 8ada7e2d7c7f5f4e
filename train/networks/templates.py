"""Whitened templates, and their matches with signals.

A match is maximised over phase and over a filter's output times. A merger may fall
between two output times, so matches are computed at ``OVERSAMPLING`` places in between.
Some templates' output times lie midway between those of the others (``Bank.shift``).
Series are analytic (complex), so the modulus of a correlation does not depend on phase.
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
"""Length of a full signal, s: a merger of 5 and 5 solar masses takes 5.4 s from 32 Hz
on."""

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
    """Compute spectra of mergers, whitened with the average noise curve.

    Args:
        masses: Heavier and lighter, detector frame, solar masses, [n, 2].
        spins: Dimensionless aligned spins, [n, 2].
        settings: Observing runs whose noise curves are averaged.
        geometry: Sample rate, and the highpass, below which spectra are zero.
        length: Length of the series, s; at least 2.

    Returns:
        One-sided spectra, complex64, [n, bins]. ``numpy.fft.irfft`` gives the series,
        of ``length`` at the sample rate. Each series has a sum of squares of 1, and
        its merger lies ``AFTER_MERGER_LENGTH`` before the end.

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
    """Compute whitened spectra, scaled to a sum of squares of 1 of each series.

    Args:
        waves: Strain, [n, size].
        weight: From ``whitening``, [size // 2 + 1].

    Returns:
        One-sided spectra, complex128, [n, size // 2 + 1].
    """
    spectra = np.fft.rfft(waves) * weight
    # Parseval: no power at 0 Hz, and none at half the sample rate.
    power = 2 / waves.shape[-1] * (np.abs(spectra) ** 2).sum(1)
    scaled: NDArray[Any] = spectra / np.sqrt(power)[:, None]
    return scaled


def whitening(settings: BankSettings, geometry: Geometry, size: int) -> NDArray[Any]:
    """Whitening weights: square root of the mean inverse PSD, over runs, H1 and L1.

    Args:
        settings: Observing runs.
        geometry: Sample rate, and the highpass, below which weights are zero.
        size: Samples of the series to be whitened.

    Returns:
        Weight of each frequency bin, 1/sqrt(PSD), float64, [size // 2 + 1].

    Raises:
        StrainError: An observing run has no noise curve.
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
    """Compute analytic series from one-sided spectra.

    Args:
        spectra: As from ``whitened_spectra``, [n, bins].

    Returns:
        complex64, [n, 2 * (bins - 1)]. The real part is the series of the spectrum;
        the imaginary part is its Hilbert transform, a quarter of a cycle later.
    """
    size = 2 * (spectra.shape[-1] - 1)
    padded = np.zeros((len(spectra), size), np.complex64)
    padded[:, : spectra.shape[-1]] = 2 * spectra
    series: NDArray[Any] = np.fft.ifft(padded).astype(np.complex64)
    return series


@dataclass(frozen=True)
class Grid:
    """Time grid on which matches are computed, coarser than the strain's samples.

    Analytic series have no negative frequencies, so a sample rate just above the
    largest frequency is enough.

    Args:
        settings: Lengths and largest frequency of the templates.
        geometry: Sample rate and highpass.

    Raises:
        ConfigurationError: ``max_frequency`` is not between the highpass and half the
            sample rate, or a template is shorter than a grid sample.
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
                f"{1 / self.rate:.2g} s or more; found "
                f"{self.settings.before_length:g} s and "
                f"{self.settings.after_length:g} s"
            )

    @property
    def step(self) -> int:
        """Strain samples per grid sample."""
        return math.ceil(self.geometry.sample_rate / self.settings.max_frequency) - 1

    @property
    def rate(self) -> float:
        """Sample rate, Hz, above ``max_frequency``."""
        return self.geometry.sample_rate / self.step

    @property
    def before_size(self) -> int:
        """Grid samples of a template before its merger."""
        return round(self.settings.before_length * self.rate)

    @property
    def after_size(self) -> int:
        """Grid samples of a template from its merger on."""
        return round(self.settings.after_length * self.rate)

    @property
    def lag_size(self) -> int:
        """Grid samples by which a signal is longer than a template, at each end."""
        return round(LAG_LENGTH * self.rate)

    @property
    def fft_size(self) -> int:
        """Length of an FFT that holds a signal."""
        return int(
            next_fast_len(self.before_size + self.after_size + 2 * self.lag_size)
        )

    def signals(
        self,
        masses: Float[NDArray[Any], "n 2"],
        spins: Float[NDArray[Any], "n 2"],
        length: float,
    ) -> Complex[Tensor, "n time"]:
        """Compute whitened signals around their mergers, on this grid.

        Args:
            masses: Heavier and lighter, detector frame, solar masses, [n, 2].
            spins: Dimensionless aligned spins, [n, 2].
            length: Length of the full signals, s.

        Returns:
            Analytic series up to ``max_frequency``, complex64, [n, before_size +
            after_size + 2 * lag_size]. The sum of ``|x|²`` is the fraction of the full
            signal's SNR² that the series holds.
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
        """Cut whitened series around their mergers, and sample them on this grid.

        Args:
            spectra: From ``whitened_spectra``, complex64, [n, bins].
            length: Length of their series, s.

        Returns:
            As ``signals``.
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
        """Compute truncated templates, each normalised to unit power.

        Args:
            masses: Heavier and lighter, detector frame, solar masses, [n, 2].
            spins: Dimensionless aligned spins, [n, 2].

        Returns:
            Analytic series, complex64, [n, before_size + after_size].
        """
        signals = self.signals(masses, spins, SERIES_LENGTH)
        cut = signals[:, self.lag_size : -self.lag_size]
        result: Tensor = cut / cut.norm(dim=1, keepdim=True)
        return result

    def transform(self, series: Complex[Tensor, "n time"]) -> Complex[Tensor, "n bins"]:
        """Fourier transform of signals or templates, [n, fft_size]."""
        result: Tensor = torch.fft.fft(series, self.fft_size)
        return result

    def match(
        self,
        signals: Complex[Tensor, "*n bins"],
        templates: Complex[Tensor, "*#n bins"],
    ) -> Float[Tensor, " oversampling *n"]:
        """Match signals with templates, maximised over phase and time.

        Args:
            signals: From ``transform``, [..., fft_size].
            templates: From ``transform``; broadcast with the signals.

        Returns:
            [OVERSAMPLING, ...]. Row k is the maximum over every ``OVERSAMPLING``-th
            lag from lag k on; the maximum over rows is that over all lags.
        """
        size = OVERSAMPLING * self.fft_size
        series = torch.fft.ifft(signals * templates.conj(), size)
        # At these lags, the circular correlation does not wrap around.
        lags = series[..., : 2 * OVERSAMPLING * self.lag_size].abs()
        result: Tensor = OVERSAMPLING * lags.unflatten(-1, (-1, OVERSAMPLING)).amax(
            -2
        ).movedim(-1, 0)
        return result


def rows_by_place(shift: int) -> list[int]:
    """Rows of ``Grid.match`` for mergers 0, 1, … lags after an unshifted output.

    Args:
        shift: Lags by which the template's outputs are delayed.
    """
    return [(shift - place) % OVERSAMPLING for place in range(OVERSAMPLING)]


def best_matches(
    grid: Grid, signals: Complex[Tensor, "n bins"], bank: Bank
) -> Float[NDArray[Any], "oversampling n"]:
    """Compute each signal's best match over a bank's templates.

    Args:
        grid: Grid of signals and templates.
        signals: From ``Grid.transform``, [n, fft_size].
        bank: The bank.

    Returns:
        [OVERSAMPLING, n]: matches of mergers 0, 1, … lags after an unshifted output.
        Their mean is the fitting factor of a full signal (Apostolatos, Phys. Rev. D
        52, 605).
    """
    templates = grid.transform(grid.templates(bank.masses, bank.spins))
    shifts = (bank.shift * OVERSAMPLING).astype(int)
    best = torch.zeros(OVERSAMPLING, len(signals))
    # Few signals at once, so that their series stay in the CPU's cache.
    for rows, part in zip(
        best.split(MATCH_CHUNK, 1), signals.split(MATCH_CHUNK), strict=True
    ):
        for template, shift in zip(templates, shifts, strict=True):
            matches = grid.match(part, template)[rows_by_place(shift)]
            torch.maximum(rows, matches, out=rows)
    return best.numpy()


def _chunks(masses: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield the row indices of batches of mergers with similar chirp mass.

    The longest waveform of a batch sets the length of all.
    """
    order = np.argsort(chirp_mass(*masses.T), kind="stable")
    for start in range(0, len(order), WAVEFORM_CHUNK):
        yield order[start : start + WAVEFORM_CHUNK]

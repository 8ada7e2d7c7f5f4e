"""Matched filters for a template bank, factored by singular value decomposition.

A template is up to 1.15 s long, and a direct filter for each would be too slow. So
templates are split into three frequency bands, each filtered at its own sample rate. In
a band, strain is filtered by the leading singular vectors of the band's templates only,
and a matrix product makes all templates' outputs from these (K. Cannon et al., Phys.
Rev. D 82, 044025 (2010)). The bank is divided by chirp mass into sub-banks, each with
its own singular vectors: templates of similar chirp mass need fewer, and those of
heavy mergers are short.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import signal
from torch import Tensor, nn

from chirpwatch.errors import (
    ConfigurationError,
    GeometryError,
)
from chirpwatch.geometry import Geometry
from chirpwatch.train.networks.bank import MERGER_LENGTH, Bank
from chirpwatch.train.networks.templates import analytic, whitened_spectra

RATE = 2048
"""The only supported sample rate of the strain, Hz."""

EDGES = (64.0, 100.0)
"""Frequencies of the two edges between the three bands, Hz."""

EDGE_WIDTH = 16.0
"""Width of the transition between two bands, Hz."""

LOW, HIGH = 8, 2
"""Decimation factors: ``LOW`` of the lower two bands, ``HIGH`` of the upper band."""

STEP = 4
"""Strain samples between two outputs of a template."""

PHASES = LOW // STEP
"""Outputs of each template per filter step; a filter step is ``LOW`` strain samples."""

ROWS = 16
"""Series filtered at once, few enough for the outputs to stay in the CPU's cache."""


def _decimators() -> tuple[NDArray[Any], NDArray[Any]]:
    """Taps of the anti-aliasing filters: before decimation by 2, and then by 4."""
    first = signal.firwin(25, 512, window=("kaiser", 2.6), fs=RATE)
    second = signal.firwin(33, 128, window=("kaiser", 2.6), fs=RATE / 2)
    return first, second


def _response(
    taps: Float[NDArray[Any], " taps"],
    rate: float,
    frequencies: Float[NDArray[Any], " bins"],
) -> Float[NDArray[Any], " bins"]:
    """Zero-phase frequency response of a symmetric filter."""
    offsets = np.arange(len(taps)) - (len(taps) - 1) / 2
    angles = 2 * np.pi * np.outer(frequencies, offsets) / rate
    gain: NDArray[Any] = np.cos(angles) @ taps
    return gain


@dataclass(frozen=True)
class SubBank:
    """Sizes of a sub-bank: consecutive templates of the bank, and their filters.

    Attributes:
        templates: Number of templates.
        ranks: Number of singular vectors of the low, middle and high band.
        lengths: Length of these bands' filters before the merger, s.
    """

    templates: int
    ranks: tuple[int, int, int]
    lengths: tuple[float, float, float]


SUB_BANKS = (
    SubBank(64, (46, 34, 24), (1.145, 0.7, 0.28)),
    SubBank(64, (32, 13, 13), (1.145, 0.38, 0.12)),
    SubBank(128, (30, 12, 12), (1.02, 0.22, 0.09)),
)
"""Sub-banks of the bank that comes with the project. Truncated to these lengths,
templates keep 0.90 of their SNR at a chirp mass of 4.6 solar masses, 0.98 at 9, and
0.99 from 10 on. Truncating the singular vectors to these ranks loses less than 0.1 %
of the templates' power."""

AFTER_LENGTHS = (0.055, 0.05, 0.03)
"""Length of each band's filters after the merger, s."""


class Band:
    """Sizes of the filters in one band of a sub-bank, in samples at the band's rate.

    Args:
        before_length: Length of the filters before the merger, s.
        after_length: Length of the filters after the merger, s.
        step: Decimation factor of the band, ``LOW`` or ``HIGH``.

    Attributes:
        before: Taps before the merger.
        taps: All taps.
        stride: Samples per filter step.
    """

    def __init__(self, before_length: float, after_length: float, step: int) -> None:
        rate = RATE / step
        self.step = step
        self.before = round(before_length * rate)
        self.taps = self.before + round(after_length * rate)
        self.stride = LOW // step


class SubBankFilters(nn.Module):
    """Filters decimated strain with a sub-bank's templates.

    Args:
        sub_bank: Numbers of templates and filters, and the filters' lengths.
        groups: Number of groups of the sub-bank's templates.
    """

    def __init__(self, sub_bank: SubBank, groups: int) -> None:
        super().__init__()
        self.groups, self.ranks = groups, tuple(sub_bank.ranks)
        self.bands = [
            Band(before, after, step)
            for before, after, step in zip(
                sub_bank.lengths, AFTER_LENGTHS, (LOW, LOW, HIGH), strict=True
            )
        ]
        self.filters = nn.ModuleList(
            nn.Conv2d(1, PHASES * rank, (1, band.taps), (1, band.stride), bias=False)
            for band, rank in zip(self.bands, self.ranks, strict=True)
        )
        # One matrix for the real and one for the imaginary parts. Rows are ordered by
        # a template's place in its group, and then by group.
        self.mix = nn.Parameter(torch.zeros(2, sub_bank.templates, sum(self.ranks)))

    def set_templates(
        self, coefficients: Sequence[NDArray[Any]]
    ) -> list[tuple[float, float]]:
        """Set the filters and the mixing matrix from templates.

        Args:
            coefficients: For each band, the templates' complex values at the filters'
                taps, phase by phase, [templates, PHASES * taps].

        Returns:
            For each band, the templates' power, and the part of it that is lost by
            the truncation to ``rank`` singular vectors.
        """
        columns, powers = [], []
        for values, band, rank, conv in zip(
            coefficients, self.bands, self.ranks, self.filters, strict=True
        ):
            stacked = np.concatenate([values.real, values.imag])
            left, sizes, right = np.linalg.svd(stacked, full_matrices=False)
            squares = sizes**2
            powers.append((float(squares.sum()), float(squares[rank:].sum())))
            # A small bank has fewer singular vectors than ``rank``.
            spare = ((0, max(0, rank - len(sizes))), (0, 0))
            taps = np.pad(right[:rank], spare).reshape(rank, PHASES, band.taps)
            assert isinstance(conv, nn.Conv2d)
            weight = torch.tensor(taps, dtype=torch.float32).transpose(0, 1)
            conv.weight.data[:] = weight.reshape(conv.weight.shape)
            columns.append(np.pad(left[:, :rank] * sizes[:rank], spare[::-1]))
        mix = torch.tensor(np.concatenate(columns, 1), dtype=torch.float32)
        mix = mix.reshape(2, self.groups, -1, mix.shape[1]).transpose(1, 2)
        self.mix.data[:] = mix.reshape(self.mix.shape)
        return powers

    def forward(
        self,
        sources: Sequence[Float[Tensor, "batch 1 1 _"]],
        starts: Sequence[int],
        stops: Sequence[int],
    ) -> Float[Tensor, "batch outputs groups steps"]:
        """Filter decimated strain.

        Args:
            sources: Each band's decimated strain, [batch, 1, 1, time].
            starts: First sample that each band filters.
            stops: Index at which each band's filter steps are cut, counted from the
                end (negative); 0 to keep all.

        Returns:
            |z|² of the templates, [batch, outputs, groups, steps]. A group has
            ``PHASES`` outputs per template in each filter step.
        """
        outputs = []
        for source, conv, start, stop in zip(
            sources, self.filters, starts, stops, strict=True
        ):
            output = conv(source[..., start:])[..., 0, : stop or None]
            outputs.append(output.unflatten(1, (PHASES, -1)).flatten(0, 1))
        filtered = torch.cat(outputs, 1)
        # Matrix products: a convolution with one tap takes three times as long.
        real, imaginary = (_product(part, filtered).float() for part in self.mix)
        power = real * real + imaginary * imaginary
        result: Tensor = (
            power.unflatten(0, (-1, PHASES))
            .unflatten(2, (-1, self.groups))
            .flatten(1, 2)
        )
        return result


def _product(
    matrix: Float[Tensor, "templates filters"],
    series: Float[Tensor, "batch filters time"],
) -> Float[Tensor, "batch templates time"]:
    """Multiply each row of the batch by the same matrix."""
    if torch.compiler.is_exporting():
        return torch.matmul(matrix, series)
    # PyTorch's matmul would copy the series into another layout for each product.
    return torch.bmm(matrix.expand(len(series), -1, -1), series)


class MatchedFilters(nn.Module):
    """Computes log-likelihood ratios of template groups from one detector's strain.

    Args:
        sub_banks: Parts of the bank, in its order.
        groups: Number of groups; all have the same number of templates, which are
            neighbours in chirp mass.
        frame_size: Samples between two frames, ``POOL_STEP * LOW``.

    Attributes:
        receptive_field: Samples that one frame depends on.
        merger_size: Samples from the start of a frame's receptive field to the
            earliest merger time that the frame covers.
        reach_size: Samples from the earliest to the latest merger time that a frame
            covers.

    Raises:
        GeometryError: A sub-bank is not a whole number of groups, or the frame size is
            not supported.
    """

    # Filter steps of a frame, and between two frames. They overlap by 3 steps, 12 ms,
    # since light takes 10 ms from H1 to L1.
    POOL, POOL_STEP = 7, 4

    def __init__(
        self, sub_banks: Sequence[SubBank], groups: int, frame_size: int
    ) -> None:
        super().__init__()
        self.sub_banks = tuple(sub_banks)
        self.templates = sum(sub_bank.templates for sub_bank in self.sub_banks)
        self.groups = groups
        size = self.templates / groups
        for sub_bank in self.sub_banks:
            if sub_bank.templates % size:
                raise GeometryError(
                    f"groups: expected {groups} groups of equal size, and a whole "
                    f"number of them in each sub-bank; found {self.templates} "
                    "templates, in sub-banks of "
                    f"{', '.join(str(x.templates) for x in sub_banks)}. Change groups "
                    "or sub_banks"
                )
        if frame_size != self.POOL_STEP * LOW:
            raise GeometryError(
                f"frame_size: expected {self.POOL_STEP * LOW} for matched filters, "
                f"found {frame_size}"
            )
        first, second = _decimators()
        for name, taps in (("first", first), ("second", second)):
            weight = torch.tensor(taps, dtype=torch.float32)[None, None, None]
            self.register_buffer(name, weight)
        self.first: Tensor
        self.second: Tensor
        self.parts = nn.ModuleList(
            SubBankFilters(sub_bank, round(sub_bank.templates / size))
            for sub_bank in self.sub_banks
        )
        bands = [band for part in self._parts() for band in part.bands]
        longest = max(band.before for band in bands if band.step == LOW)
        after = max(band.taps - band.before for band in bands if band.step == LOW)
        half_first, half_second = len(first) // 2, len(second) // 2
        self.merger_size = LOW * longest + half_first + 2 * half_second
        high = (self.merger_size - half_first) // HIGH
        self.starts = [
            [(longest if band.step == LOW else high) - band.before for band in x.bands]
            for x in self._parts()
        ]
        self.stops = self._stops()
        self.reach_size = STEP * (PHASES * self.POOL - 1)
        low_size = longest + after + self.POOL - 2
        self.receptive_field = LOW * low_size + 2 * (len(second) - 1) + len(first)

    def _parts(self) -> list[SubBankFilters]:
        """The modules in ``parts`` with their type, which ``ModuleList`` loses."""
        return [part for part in self.parts if isinstance(part, SubBankFilters)]

    def _stops(self) -> list[list[int]]:
        """``stops`` of ``SubBankFilters.forward`` that give all bands equal lengths.

        The surplus over the shortest band is the same for strain of any length.
        """
        size = 4096
        first = (size - self.first.shape[-1]) // 2 + 1
        second = (first - self.second.shape[-1]) // 4 + 1
        counts = []
        for part, starts in zip(self._parts(), self.starts, strict=True):
            counts.append(
                [
                    ((second if band.step == LOW else first) - start - band.taps)
                    // band.stride
                    + 1
                    for band, start in zip(part.bands, starts, strict=True)
                ]
            )
        least = min(min(row) for row in counts)
        return [[least - count for count in row] for row in counts]

    def set_bank(self, bank: Bank, geometry: Geometry) -> list[float]:
        """Set the filters from a bank's templates.

        Args:
            bank: A bank with ``templates`` templates.
            geometry: Sample rate and highpass.

        Returns:
            Fraction of each sub-bank's power that the truncated singular value
            decomposition loses.

        Raises:
            GeometryError: The sample rate is not 2048 Hz.
            ConfigurationError: The bank has a different number of templates.
        """
        if len(bank.masses) != self.templates:
            raise ConfigurationError(
                f"bank: expected a bank of {self.templates} templates, as many as in "
                f"sub_banks; found {len(bank.masses)}"
            )
        if geometry.sample_rate != RATE:
            raise GeometryError(
                f"sample_rate: expected {RATE} Hz for matched filters, found "
                f"{geometry.sample_rate}"
            )
        spectra = whitened_spectra(bank.masses, bank.spins, bank.settings, geometry)
        size = 2 * (spectra.shape[1] - 1)
        frequencies = np.fft.rfftfreq(size, 1 / RATE)
        first, second = (
            _response(x, r, frequencies)
            for x, r in zip(_decimators(), (RATE, RATE / 2), strict=True)
        )
        templates = analytic(spectra)
        series = []
        for step, window in zip(
            (LOW, LOW, HIGH),
            band_windows(frequencies, bank.settings.max_frequency),
            strict=True,
        ):
            gain = first * second if step == LOW else first
            inverse = np.divide(window, gain, where=window > 0, out=0 * window)
            series.append(analytic(spectra * inverse.astype(np.float32)))
        # Strain samples by which each template's outputs are delayed.
        shifts = np.round(STEP * bank.shift).astype(int)[:, None]
        shares, begin = [], 0
        for part in self._parts():
            rows = np.arange(begin, begin + part.mix.shape[1])
            begin += len(rows)
            powers = part.set_templates(
                _coefficients(part.bands, rows[:, None], templates, series, shifts)
            )
            power, lost = np.sum(powers, 0)
            shares.append(float(lost / power))
        return shares

    def forward(
        self, x: Float[Tensor, "batch 1 time"]
    ) -> Float[Tensor, "batch groups frames"]:
        """Filter whitened strain.

        Args:
            x: Whitened strain, [batch, 1, time], a whole number of frames.

        Returns:
            Largest |z|²/2 of each group in each frame, [batch, groups, frames].
        """
        if torch.compiler.is_exporting():
            return self._filter(x)
        return torch.cat([self._filter(part) for part in torch.split(x, ROWS)])

    def _filter(
        self, x: Float[Tensor, "batch 1 time"]
    ) -> Float[Tensor, "batch groups frames"]:
        largest = torch.cat([power.amax(1) for power in self.powers(x)], 1)
        return nn.functional.max_pool1d(largest, self.POOL, self.POOL_STEP) / 2

    def powers(
        self, x: Float[Tensor, "batch 1 time"]
    ) -> list[Float[Tensor, "batch _ _ steps"]]:
        """|z|² of each sub-bank's templates; see ``SubBankFilters.forward``."""
        first = nn.functional.conv2d(x[:, :, None], self.first, stride=(1, 2))
        second = nn.functional.conv2d(first, self.second, stride=(1, 4))
        return [
            part((second, second, first), starts, stops)
            for part, starts, stops in zip(
                self.parts, self.starts, self.stops, strict=True
            )
        ]


def _coefficients(
    bands: Sequence[Band],
    rows: NDArray[Any],
    templates: NDArray[Any],
    series: Sequence[NDArray[Any]],
    shifts: NDArray[Any],
) -> list[NDArray[Any]]:
    """Sample templates at the taps of each band's filters.

    Args:
        bands: Bands of the templates' sub-bank.
        rows: Indices of the sub-bank's templates, [n, 1].
        templates: All templates as analytic series, [templates, samples].
        series: The same templates within each band, corrected for the decimators.
        shifts: Strain samples by which each template's outputs are delayed,
            [templates, 1].

    Returns:
        For each band, complex values, [n, PHASES * taps].
    """
    merger = round(MERGER_LENGTH * RATE)
    begin = merger - bands[0].before * LOW
    stop = merger + round(AFTER_LENGTHS[0] * RATE)
    # The real part of a truncated template has unit norm.
    power = (np.abs(templates[rows[:, 0], begin:stop]) ** 2).sum(1) / 2
    norm = np.sqrt(power)[:, None]
    result = []
    for band, values in zip(bands, series, strict=True):
        samples = (
            merger
            + band.step * (np.arange(band.taps) - band.before)
            - shifts[rows[:, 0]]
        )
        phases = [
            values[rows, samples - STEP * phase] * band.step / norm
            for phase in range(PHASES)
        ]
        result.append(np.concatenate(phases, 1))
    return result


def band_windows(
    frequencies: Float[NDArray[Any], " bins"], max_frequency: float
) -> list[Float[NDArray[Any], " bins"]]:
    """Weights of the three bands at each frequency; they sum to 1.

    Above ``max_frequency``, the sum falls to 0 within 40 Hz.

    Args:
        frequencies: Hz, [bins].
        max_frequency: Highest frequency of a template, Hz.

    Returns:
        Weights of the low, middle and high band, [bins] each.
    """

    def below(edge: float, width: float) -> NDArray[Any]:
        ramp = np.clip((frequencies - edge + width / 2) / width, 0, 1)
        result: NDArray[Any] = np.cos(ramp * np.pi / 2) ** 2
        return result

    low, middle = below(EDGES[0], EDGE_WIDTH), below(EDGES[1], EDGE_WIDTH)
    top = np.clip((frequencies - max_frequency) / 40, 0, 1)
    return [
        low,
        (1 - low) * middle,
        (1 - middle) * np.cos(top * np.pi / 2) ** 2,
    ]

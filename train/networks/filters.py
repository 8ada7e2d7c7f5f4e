"""Matched filters for a bank of templates, factored by singular vectors.

A filter as long as a template (up to 1.15 s) is affordable since few shapes suffice to
make all templates of a band: each of three bands is filtered at its own rate by the
leading singular vectors of its templates, and one matrix makes all templates' outputs
from these. Templates of similar chirp mass share more shapes, and heavy ones are short:
so the bank is divided by chirp mass into sub-banks, each with shapes of its own
(K. Cannon et al., Phys. Rev. D 82, 044025 (2010)).
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
"""Rate of the strain that the bands are laid out for, Hz."""

EDGES = (64.0, 100.0)
"""Frequencies between the bands, Hz."""

EDGE_WIDTH = 16.0
"""Width over which one band goes over into the next, Hz."""

LOW, HIGH = 8, 2
"""Samples of the strain for each sample that the lower two bands and the upper one
filter."""

STEP = 4
"""Samples of the strain between two outputs of the templates."""

PHASES = LOW // STEP
"""Outputs of each template for one step of the filters, which is ``LOW`` samples."""

ROWS = 16
"""Series that are filtered at a time: what the templates' outputs take of a cache."""


def _decimators() -> tuple[NDArray[Any], NDArray[Any]]:
    """Low-pass filters before the strain is thinned out by 2, and then by 4."""
    first = signal.firwin(25, 512, window=("kaiser", 2.6), fs=RATE)
    second = signal.firwin(33, 128, window=("kaiser", 2.6), fs=RATE / 2)
    return first, second


def _response(
    taps: Float[NDArray[Any], " taps"],
    rate: float,
    frequencies: Float[NDArray[Any], " bins"],
) -> Float[NDArray[Any], " bins"]:
    """Gain of a symmetric filter about its middle tap."""
    offsets = np.arange(len(taps)) - (len(taps) - 1) / 2
    angles = 2 * np.pi * np.outer(frequencies, offsets) / rate
    gain: NDArray[Any] = np.cos(angles) @ taps
    return gain


@dataclass(frozen=True)
class SubBank:
    """Templates of neighbouring chirp mass, and the filters that make them.

    Attributes:
        templates: Templates, in the bank's order.
        ranks: Filters of each band.
        lengths: How long before the merger the filters of each band begin, s.
    """

    templates: int
    ranks: tuple[int, int, int]
    lengths: tuple[float, float, float]


SUB_BANKS = (
    SubBank(64, (46, 34, 24), (1.145, 0.7, 0.28)),
    SubBank(64, (32, 13, 13), (1.145, 0.38, 0.12)),
    SubBank(128, (30, 12, 12), (1.02, 0.22, 0.09)),
)
"""Of the bank that comes with the project. Templates keep 0.90 of their SNR at a chirp
mass of 4.6 solar masses, 0.98 at 9 and 0.99 from 10 on; the ranks leave out less
than 0.1 % of the templates' power."""

AFTER_LENGTHS = (0.055, 0.05, 0.03)
"""How long after the merger each band's filters end, s."""


class Band:
    """Where the filters of a sub-bank's band lie.

    Args:
        before_length: How long before the merger they begin, s.
        after_length: How long after it they end, s.
        step: Samples of the strain for each sample that is filtered.

    Attributes:
        before, taps: Samples before the merger, and in all, at the band's rate.
        stride: Samples, at the band's rate, between two steps of the filters.
    """

    def __init__(self, before_length: float, after_length: float, step: int) -> None:
        rate = RATE / step
        self.step = step
        self.before = round(before_length * rate)
        self.taps = self.before + round(after_length * rate)
        self.stride = LOW // step


class SubBankFilters(nn.Module):
    """Outputs of a sub-bank's templates from the thinned-out strain.

    Args:
        sub_bank: Templates and filters.
        groups: Groups of the sub-bank's templates.
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
        # The real parts' rows and those of the imaginary parts, in each one template of
        # every group after the other.
        self.mix = nn.Parameter(torch.zeros(2, sub_bank.templates, sum(self.ranks)))

    def set_templates(
        self, coefficients: Sequence[NDArray[Any]]
    ) -> list[tuple[float, float]]:
        """Make the filters of templates.

        Args:
            coefficients: Of each band, the templates' complex values at the filters'
                taps, phase after phase, [templates, phases * taps].

        Returns:
            Power of each band, and what of it the filters do not hold.
        """
        columns, lost = [], []
        for values, band, rank, conv in zip(
            coefficients, self.bands, self.ranks, self.filters, strict=True
        ):
            both = np.concatenate([values.real, values.imag])
            left, sizes, right = np.linalg.svd(both, full_matrices=False)
            squares = sizes**2
            lost.append((float(squares.sum()), float(squares[rank:].sum())))
            # A small bank has fewer shapes than there are filters.
            spare = ((0, max(0, rank - len(sizes))), (0, 0))
            taps = np.pad(right[:rank], spare).reshape(rank, PHASES, band.taps)
            assert isinstance(conv, nn.Conv2d)
            weight = torch.tensor(taps, dtype=torch.float32).transpose(0, 1)
            conv.weight.data[:] = weight.reshape(conv.weight.shape)
            columns.append(np.pad(left[:, :rank] * sizes[:rank], spare[::-1]))
        mix = torch.tensor(np.concatenate(columns, 1), dtype=torch.float32)
        mix = mix.reshape(2, self.groups, -1, mix.shape[1]).transpose(1, 2)
        self.mix.data[:] = mix.reshape(self.mix.shape)
        return lost

    def forward(
        self,
        sources: Sequence[Float[Tensor, "batch 1 1 _"]],
        starts: Sequence[int],
        stops: Sequence[int],
    ) -> Float[Tensor, "batch outputs groups steps"]:
        """Filter thinned-out strain.

        Args:
            sources: What each band filters, [batch, 1, 1, time].
            starts: First sample of it that each band filters.
            stops: Where its steps are cut off, from the end; 0 for nowhere.

        Returns:
            |z|² of the templates, [batch, outputs, groups, steps]. The outputs of a
            group in a step are those of each of its templates, ``PHASES`` times.
        """
        outputs = []
        for source, conv, start, stop in zip(
            sources, self.filters, starts, stops, strict=True
        ):
            output = conv(source[..., start:])[..., 0, : stop or None]
            outputs.append(output.unflatten(1, (PHASES, -1)).flatten(0, 1))
        filtered = torch.cat(outputs, 1)
        # As matrix products: a convolution with one tap takes three times as long.
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
    """Multiply each row's series by one matrix, [batch, groups, time]."""
    if torch.compiler.is_exporting():
        return torch.matmul(matrix, series)
    # PyTorch's matmul would lay the series out anew for each product.
    return torch.bmm(matrix.expand(len(series), -1, -1), series)


class MatchedFilters(nn.Module):
    """Whitened strain of one detector to log-likelihood ratios of groups of templates.

    Args:
        sub_banks: Parts of the bank, in its order.
        groups: Groups of as many templates each, neighbours in chirp mass.
        frame_size: Samples between two frames.

    Attributes:
        receptive_field: Samples that one frame depends on.
        merger_size: Samples from a frame's first to the first merger that it stands
            for; the last one is ``reach_size`` later.

    Raises:
        GeometryError: A sub-bank cannot be divided into groups, or the frame size is
            none that the filters have.
    """

    # Steps of the filters. Light needs 10 ms from H1 to L1: frames overlap by as much.
    POOL, POOL_STEP = 7, 4

    def __init__(
        self, sub_banks: Sequence[SubBank], groups: int, frame_size: int
    ) -> None:
        super().__init__()
        self.sub_banks = tuple(sub_banks)
        self.templates = sum(one.templates for one in self.sub_banks)
        self.groups = groups
        size = self.templates / groups
        for one in self.sub_banks:
            if one.templates % size:
                raise GeometryError(
                    f"groups: expected as many templates in each of {groups} groups, "
                    f"whole groups in each sub-bank, found {self.templates} templates, "
                    f"sub-banks of {', '.join(str(x.templates) for x in sub_banks)}"
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
            SubBankFilters(one, round(one.templates / size)) for one in self.sub_banks
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
        """The sub-banks' filters, typed."""
        return [part for part in self.parts if isinstance(part, SubBankFilters)]

    def _stops(self) -> list[list[int]]:
        """Where each band's outputs are cut off: all then have the same length.

        What the others have beyond the shortest does not depend on how many frames
        there are.
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
        """Make the filters of a bank's templates.

        Args:
            bank: As many templates as this has.
            geometry: Sample rate and highpass.

        Returns:
            Share of each sub-bank's power that the filters do not hold.

        Raises:
            GeometryError: The sample rate is another than 2048 Hz.
            ConfigurationError: The bank has another number of templates.
        """
        if len(bank.masses) != self.templates:
            raise ConfigurationError(
                f"bank: expected a bank of {self.templates} templates, found "
                f"{len(bank.masses)}"
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
        whole = analytic(spectra)
        series = []
        for step, window in zip(
            (LOW, LOW, HIGH),
            band_windows(frequencies, bank.settings.max_frequency),
            strict=True,
        ):
            gain = first * second if step == LOW else first
            inverse = np.divide(window, gain, where=window > 0, out=0 * window)
            series.append(analytic(spectra * inverse.astype(np.float32)))
        # Strain's samples by which a template's outputs are later.
        shifts = np.round(STEP * bank.shift).astype(int)[:, None]
        shares, begin = [], 0
        for part in self._parts():
            rows = np.arange(begin, begin + part.mix.shape[1])
            begin += len(rows)
            lost = part.set_templates(
                _coefficients(part.bands, rows[:, None], whole, series, shifts)
            )
            power, missing = np.sum(lost, 0)
            shares.append(float(missing / power))
        return shares

    def forward(
        self, x: Float[Tensor, "batch 1 time"]
    ) -> Float[Tensor, "batch groups frames"]:
        """Filter whitened strain.

        Args:
            x: Whitened strain, [batch, 1, time], whole frames.

        Returns:
            Largest |z|²/2 of each group and frame, [batch, groups, frames].
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
        """|z|² of each sub-bank's templates, see ``SubBankFilters.forward``."""
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
    whole: NDArray[Any],
    series: Sequence[NDArray[Any]],
    shifts: NDArray[Any],
) -> list[NDArray[Any]]:
    """Values of templates at the taps of each band's filters.

    Args:
        bands: Of the templates' sub-bank.
        rows: Which templates, [n, 1].
        whole: All templates, complex, [templates, samples].
        series: The same within each band.
        shifts: Samples of the strain by which each one's outputs are later, likewise.
    """
    merger = round(MERGER_LENGTH * RATE)
    begin = merger - bands[0].before * LOW
    stop = merger + round(AFTER_LENGTHS[0] * RATE)
    # The real part of a truncated template has unit norm.
    norm = np.sqrt((np.abs(whole[rows[:, 0], begin:stop]) ** 2).sum(1) / 2)[:, None]
    result = []
    for band, values in zip(bands, series, strict=True):
        at = (
            merger
            + band.step * (np.arange(band.taps) - band.before)
            - shifts[rows[:, 0]]
        )
        phases = [
            values[rows, at - STEP * phase] * band.step / norm
            for phase in range(PHASES)
        ]
        result.append(np.concatenate(phases, 1))
    return result


def band_windows(
    frequencies: Float[NDArray[Any], " bins"], max_frequency: float
) -> list[Float[NDArray[Any], " bins"]]:
    """Weights of the bands over frequency; they add up to 1 below the highest.

    Args:
        frequencies: Hz, [bins].
        max_frequency: Highest frequency of a template, Hz.
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

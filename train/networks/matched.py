"""A network whose frontend holds matched filters beside learned ones.

Each detector's whitened strain is filtered by a bank of templates. Of every group of
templates of similar chirp mass, and of every 1/64 s, the largest |z|²/2 is kept: the
logarithm of the likelihood ratio of a signal in noise, less a constant. What this is
worth is limited by a ceiling that the network learns from these values and from a
learned frontend's frames: low where they look like a glitch. The head adds the
detectors' limited values, takes each group's largest over the kernel, and adds the
groups up as likelihoods (log-sum-exp), each weighted by a learned prior. What a small
network makes of learned channels, added likewise, is one more term.

A filter as long as a template (up to 1.15 s) is affordable since few shapes suffice to
make all templates of a band: each of three bands is filtered at its own rate by the
leading singular vectors of its templates, and one matrix makes all templates' outputs
from these. Templates of similar chirp mass share more shapes, and heavy ones are short:
so the bank is divided by chirp mass into sub-banks, each with shapes of its own
(K. Cannon et al., Phys. Rev. D 82, 044025 (2010)).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

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
from chirpwatch.train.networks.bank import (
    MERGER_LENGTH,
    Bank,
    analytic,
    whitened_spectra,
)
from chirpwatch.train.networks.network import (
    Frontend,
    Network,
    fused,
)

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

LARGEST, MIDDLE = 120.0, 40.0
"""Largest logarithm of a likelihood ratio that is told from larger ones, and the value
about which likelihoods are added."""

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


class MatchedHead(nn.Module):
    """Scores every kernel of the detectors' added values.

    All that the score needs of a kernel's frames is each channel's largest value.

    Args:
        groups: Groups of templates.
        coarse: Wider groups, whose values are not limited.
        channels: Learned channels.
        kernel_frames: Frames within one kernel.
        stride_frames: Frames between two scores.
    """

    HIDDEN = 24
    # About the mean and spread of the three terms in noise and signals.
    CENTERS, SPREADS = (16.0, 20.0, 0.0), (3.0, 5.0, 4.0)

    def __init__(
        self,
        groups: int,
        coarse: int,
        channels: int,
        kernel_frames: int,
        stride_frames: int,
    ) -> None:
        super().__init__()
        self.groups, self.coarse = groups, coarse
        self.kernel_frames, self.stride_frames = kernel_frames, stride_frames
        self.prior = nn.Parameter(torch.zeros(groups, 1))
        self.coarse_prior = nn.Parameter(torch.zeros(coarse, 1))
        self.learned = nn.Sequential(
            nn.ReLU(),
            nn.Conv1d(channels, self.HIDDEN, 1),
            nn.ReLU(),
            nn.Conv1d(self.HIDDEN, 1, 1),
        )
        self.weights = nn.Parameter(torch.tensor([1.0, 0.1]))
        self.offset: nn.Parameter = nn.Parameter(torch.tensor(-16.0))
        self.combine = nn.Sequential(
            nn.Conv1d(3, self.HIDDEN, 1),
            nn.ReLU(),
            nn.Conv1d(self.HIDDEN, self.HIDDEN, 1),
            nn.ReLU(),
            nn.Conv1d(self.HIDDEN, 1, 1),
        )
        last = self.combine[-1]
        assert isinstance(last, nn.Conv1d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.register_buffer("centers", torch.tensor(self.CENTERS)[:, None])
        self.register_buffer("spreads", torch.tensor(self.SPREADS)[:, None])
        self.centers: Tensor
        self.spreads: Tensor
        self.register_buffer("frames", torch.eye(kernel_frames)[:, None])
        self.frames: Tensor

    def forward(
        self, features: Float[Tensor, "batch ifos channels frames"]
    ) -> tuple[Float[Tensor, "batch strides"], Float[Tensor, "batch strides"]]:
        """Score every whole kernel; see ``network.Head.forward``."""
        return self.forward_sum(features.sum(1))

    def forward_sum(
        self, total: Float[Tensor, "batch channels frames"]
    ) -> tuple[Float[Tensor, "batch strides"], Float[Tensor, "batch strides"]]:
        """Score kernels of added frames; see ``network.Head.forward_sum``."""
        score, salience = self.evaluate(total)
        return score, salience.argmax(1).float()

    def evaluate(
        self, total: Float[Tensor, "batch channels frames"]
    ) -> tuple[
        Float[Tensor, "batch strides"], Float[Tensor, "batch kernel_frames strides"]
    ]:
        """Score every whole kernel; see ``network.Head.evaluate``.

        Args:
            total: The detectors' values, added, [batch, groups + coarse + channels + 1,
                frames].
        """
        limited, coarse, learned = self.terms(total)
        x = torch.stack([limited, coarse.clamp(max=50), learned], 1)
        x = (x - self.centers) / self.spreads
        score = self.weights[0] * limited + self.weights[1] * learned + self.offset
        salience = nn.functional.conv1d(
            total[:, -1:], self.frames.to(total.dtype), stride=self.stride_frames
        )
        return score + self.combine(x).squeeze(1), salience

    def terms(
        self, total: Float[Tensor, "batch channels frames"]
    ) -> tuple[
        Float[Tensor, "batch strides"],
        Float[Tensor, "batch strides"],
        Float[Tensor, "batch strides"],
    ]:
        """The parts of the score, [batch, strides] each.

        Returns:
            Log-likelihood ratios of the limited and of the coarse groups, and the score
            of the learned channels.
        """
        largest = self._largest(total)
        limited = largest[:, : self.groups] + self.prior
        stop = self.groups + self.coarse
        coarse = largest[:, self.groups : stop] + self.coarse_prior
        learned = self.learned(largest[:, stop:-1])
        return _add_likelihoods(limited), _add_likelihoods(coarse), learned.squeeze(1)

    def _largest(
        self, total: Float[Tensor, "batch channels frames"]
    ) -> Float[Tensor, "batch channels strides"]:
        """Largest value of each kernel, [batch, channels, strides]."""
        # Of each stride first, since kernels overlap.
        step, count = self.stride_frames, self.kernel_frames // self.stride_frames
        if not torch.compiler.is_exporting():
            # The exported head is given whole strides alone.
            total = total[..., : total.shape[-1] // step * step]
        parts = total.unflatten(-1, (-1, step)).amax(-1)
        largest: Tensor = parts[..., count - 1 :]
        for i in range(1, count):
            largest = torch.maximum(largest, parts[..., count - 1 - i : -i])
        return largest


def _softplus(x: Tensor) -> Tensor:
    """Logarithm of 1 + exp(x), of operators that ONNX Runtime has in vectors.

    Its own one takes three times as long.
    """
    return torch.relu(x) + (1 + (-x.abs()).exp()).log()


def _add_likelihoods(
    logarithms: Float[Tensor, "batch channels strides"],
) -> Float[Tensor, "batch strides"]:
    """Logarithm of the sum of exponentials over channels, [batch, strides].

    About a fixed value in place of the largest, which would have to be found first:
    exponentials of -80 to 80 are within single precision.
    """
    x = logarithms.float().clamp(-MIDDLE, LARGEST) - MIDDLE
    return x.exp().sum(1).log() + MIDDLE


class MatchedNetwork(nn.Module):
    """The whole detector network: matched filters and a learned frontend, one head.

    Args:
        geometry: Kernel, stride and frame sizes.
        sub_banks: Parts of the bank, each as ``SubBank`` or its values by name.
        groups: Groups of templates.
        width: Channels of the learned frontend's stem.
        channels: Learned channels that are added up.
        hidden: Channels from which the ceilings are made.

    Raises:
        GeometryError: The filters do not fit in a kernel, or frame size or rate are
            none that they can have.
    """

    # Above this, a larger value of a template says nothing more about what it is.
    CLAMP, COARSE_CLAMP = 100.0, 60.0
    COARSE_GROUPS = 8
    CEILING_SCALE, SOFTNESS = 4.0, 1.5
    FIRST_CEILING = 28.0
    # A ceiling depends on the frames before its own as well: what a glitch does there.
    # None after it, or a merger near the kernel's end would be missed.
    TAPS, WIDTH = 5, 48
    FRAMES_BEFORE = 2 * (TAPS - 1)

    def __init__(
        self,
        geometry: Geometry,
        sub_banks: Sequence[SubBank | Mapping[str, Any]] = SUB_BANKS,
        groups: int = 64,
        width: int = 16,
        channels: int = 16,
        hidden: int = 32,
    ) -> None:
        super().__init__()
        self.geometry = geometry
        parts = [x if isinstance(x, SubBank) else SubBank(**x) for x in sub_banks]
        self.hyperparameters = {
            "sub_banks": [
                {
                    "templates": one.templates,
                    "ranks": list(one.ranks),
                    "lengths": list(one.lengths),
                }
                for one in parts
            ],
            "groups": groups,
            "width": width,
            "channels": channels,
            "hidden": hidden,
        }
        self.matched = MatchedFilters(parts, groups, geometry.frame_size)
        self.frontend = Frontend(geometry.frame_size, width)
        self.groups = groups
        inputs = groups + self.frontend.channels
        self.norm: nn.Module = nn.BatchNorm1d(inputs, affine=False)
        self.hidden = nn.Sequential(
            nn.Conv1d(inputs, self.WIDTH, 1),
            nn.ReLU(),
            nn.Conv1d(self.WIDTH, self.WIDTH, self.TAPS),
            nn.ReLU(),
            nn.Conv1d(self.WIDTH, hidden, self.TAPS),
            nn.ReLU(),
        )
        self.ceiling = nn.Conv1d(hidden, groups, 1)
        nn.init.zeros_(self.ceiling.weight)
        assert self.ceiling.bias is not None
        nn.init.constant_(self.ceiling.bias, self.FIRST_CEILING)
        self.projection = nn.Conv1d(inputs + hidden, channels, 1)
        self.salience = nn.Conv1d(hidden, 1, 1, bias=False)
        spare_size = geometry.kernel_size - self.matched.receptive_field
        if spare_size < 0:
            raise GeometryError(
                f"kernel_length: expected at least the matched filters' receptive "
                f"field of {self.matched.receptive_field} samples, found "
                f"{geometry.kernel_size}"
            )
        stride_frames = geometry.stride_size // geometry.frame_size
        # Whole strides of frames.
        kernel_frames = spare_size // geometry.frame_size + 1 - self.FRAMES_BEFORE
        # The first ones are left out: of mergers the farthest from the kernel's end.
        self.start = kernel_frames % stride_frames
        kernel_frames -= self.start
        if kernel_frames < stride_frames:
            raise GeometryError(
                "kernel_length: expected room for "
                f"{self.FRAMES_BEFORE + stride_frames} frames of matched filters, "
                f"found {geometry.kernel_length:g} s"
            )
        # The learned frames of the same merger times.
        peak_size = self.matched.merger_size + self.matched.reach_size / 2
        peak_size += self.start * geometry.frame_size
        learned_size = Network.PEAK_FRACTION * self.frontend.receptive_field
        spare_size = geometry.kernel_size - self.frontend.receptive_field
        latest = spare_size // geometry.frame_size + 1
        latest -= kernel_frames + self.FRAMES_BEFORE
        offset = round((peak_size - learned_size) / geometry.frame_size)
        self.offset = max(0, min(offset, latest))
        self.stop = self.offset - latest or None
        self.peak_size = peak_size + self.FRAMES_BEFORE * geometry.frame_size
        self.head = MatchedHead(
            groups,
            groups // self.COARSE_GROUPS,
            channels,
            kernel_frames=kernel_frames,
            stride_frames=stride_frames,
        )

    def set_bank(self, bank: Bank) -> list[float]:
        """Begin with a bank's templates; see ``MatchedFilters.set_bank``."""
        lost = self.matched.set_bank(bank, self.geometry)
        share = torch.tensor(bank.share, dtype=torch.float32)
        prior = share.reshape(self.groups, -1).sum(1, keepdim=True)
        prior = prior.clamp(min=1e-4)
        self.head.prior.data[:] = prior.log()
        coarse = prior.reshape(-1, self.COARSE_GROUPS, 1).sum(1)
        self.head.coarse_prior.data[:] = coarse.log()
        return lost

    def set_learned(self, network: Network) -> None:
        """Begin with the frontend of a trained network without matched filters."""
        self.frontend.load_state_dict(network.frontend.state_dict())

    def offsets(self) -> list[nn.Parameter]:
        """Biases in units of the score, which are trained at a higher rate."""
        head, bias = self.head, self.ceiling.bias
        assert isinstance(bias, nn.Parameter)
        return [head.prior, head.coarse_prior, head.offset, bias]

    def features(
        self, x: Float[Tensor, "batch ifos time"]
    ) -> Float[Tensor, "batch ifos channels frames"]:
        """Compute what of each detector is added up.

        Args:
            x: Whitened strain, [batch, ifos, time], whole frames.

        Returns:
            [batch, ifos, groups + coarse + channels + 1, frames]: limited values of
            the groups, those of wider groups as they are, the learned channels, and how
            much the frame looks like a merger's. No detector's frames depend on
            another's strain.
        """
        values = self.limit(*self.filter(x.flatten(0, 1)[:, None]))
        result: Tensor = values.unflatten(0, x.shape[:2])
        return result

    def filter(
        self, x: Float[Tensor, "batch 1 time"]
    ) -> tuple[
        Float[Tensor, "batch groups frames"], Float[Tensor, "batch learned frames"]
    ]:
        """Filter whitened strain of single detectors.

        Args:
            x: [batch, 1, time], whole frames.

        Returns:
            Log-likelihood ratios of groups of templates, [batch, groups, frames], and
            the learned frontend's output for the same mergers, [batch, width * 4,
            frames].
        """
        frames = self.frontend(x)[..., self.offset : self.stop]
        return self.matched(x)[..., self.start :], frames

    def limit(
        self,
        power: Float[Tensor, "batch groups frames"],
        frames: Float[Tensor, "batch learned frames"],
    ) -> Float[Tensor, "batch channels rest"]:
        """Limit the values of a detector's groups, and join the learned channels.

        Args:
            power: Of the groups, as from ``filter``.
            frames: The learned frontend's, likewise.

        Returns:
            [batch, groups + coarse + channels + 1, frames - FRAMES_BEFORE]: none for
            the first frames, which have too few before them.
        """
        seen = self.norm(torch.cat([power.clamp(max=self.CLAMP).sqrt(), frames], 1))
        hidden = self.hidden(seen)
        power, seen = (x[..., self.FRAMES_BEFORE :] for x in (power, seen))
        ceiling = self.ceiling(hidden) / self.CEILING_SCALE
        ceiling = self.CEILING_SCALE * _softplus(ceiling)
        gap = (ceiling - power) / self.SOFTNESS
        limited = ceiling - self.SOFTNESS * _softplus(gap)
        coarse = power.clamp(max=self.COARSE_CLAMP).unflatten(
            1, (-1, self.COARSE_GROUPS)
        )
        best = limited.amax(1, keepdim=True)
        return torch.cat(
            [
                limited,
                coarse.amax(2),
                self.projection(torch.cat([seen, hidden], 1)),
                self.salience(hidden) + best,
            ],
            1,
        )

    def evaluate(
        self, x: Float[Tensor, "batch ifos time"]
    ) -> tuple[
        Float[Tensor, "batch strides"], Float[Tensor, "batch kernel_frames strides"]
    ]:
        """Score whitened strain; see ``Network.evaluate``."""
        return self.head.evaluate(self.features(x).sum(1))

    def forward(
        self, x: Float[Tensor, "batch ifos time"]
    ) -> Float[Tensor, "batch strides"]:
        """Score whitened strain; see ``Network.forward``."""
        score: Tensor = self.head(self.features(x))[0]
        return score

    def fused(self) -> Self:
        """Copy the network in evaluation mode, norms folded into convolutions."""
        network = fused(self)
        if isinstance(network.norm, nn.BatchNorm1d):
            for conv in (network.hidden[0], network.projection):
                assert isinstance(conv, nn.Conv1d)
                _fold_into(conv, network.norm)
            network.norm = nn.Identity()
        return network


def _fold_into(conv: nn.Conv1d, norm: nn.BatchNorm1d) -> None:
    """Fold a norm without weights of its own into the convolution that follows it.

    What the convolution has beside the norm's channels comes after these, and stays.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    assert conv.bias is not None
    weight = conv.weight.data[:, : norm.num_features]
    weight *= torch.rsqrt(norm.running_var + norm.eps)[:, None]
    conv.bias.data -= (weight[:, :, 0] * norm.running_mean).sum(1)

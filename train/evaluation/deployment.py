"""Validation as in deployment: whole stretches, timeslides, injections, events.

Everything is drawn once, so that two networks, or one network at two times, are judged
by the same strain. What is measured:

- the share of injections found at a false-alarm rate of one an hour and one a day: by
  the loudest event of 8 s, as the search clusters its scores, within
  ``MATCH_WINDOW`` of the merger's time;
- on single windows as in training, the loss and the part of the ROC curve that a search
  lives in, below a false-positive rate of 1e-3.

Timeslides are cheap for a network that looks at each detector alone first, whose frames
can be shifted. Any other network is run again for each slide.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from ml4gw.gw import compute_ifo_snr
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from chirpwatch.background import Background
from chirpwatch.clustering import CLUSTER_LENGTH, cluster_strides, find_events
from chirpwatch.efficiency import MATCH_WINDOW, match_injections
from chirpwatch.errors import ConfigurationError
from chirpwatch.geometry import Geometry
from chirpwatch.train.data import whitening
from chirpwatch.train.data.noise.glitches import (
    draw_glitch,
    draw_snrs,
    scale_to_snr,
)
from chirpwatch.train.data.noise.sources import (
    SimulatedStretches,
    StretchSource,
)
from chirpwatch.train.data.signals.injections import (
    MERGER_LENGTH,
    SIGNAL_LENGTH,
    project,
)
from chirpwatch.train.data.signals.population import draw_components
from chirpwatch.train.data.signals.waveforms import (
    face_on_waveforms,
    sky,
)
from chirpwatch.train.data.window_settings import WindowSettings
from chirpwatch.train.data.windows import WindowMaker
from chirpwatch.train.evaluation.scoring import (
    frames_of,
    has_slides,
    kernel_frames,
    score_frames_and_peaks,
    score_slide,
    score_stretch,
    score_windows,
    slide_pieces,
)
from chirpwatch.units import JULIAN_YEAR

STRETCHES = 4
"""Background stretches, each with sources and glitches of its own."""

GLITCH_RATE = 0.01
"""Glitches of each detector, Hz: 0.6 a minute.

Between those of H1 and L1 in O3, 0.3 and 1.1 a minute (arXiv:2111.03606, section III).
"""

GLITCH_LENGTH = 4.0
INJECTION_SPACING = 12.0
"""Time between injections, s.

Less the jitter of both, more than events are apart: a loud merger is seen by kernels up
to a second away, and what is louder within 8 s would take a fainter one's event.
"""

INJECTION_JITTER = 1.0
LEAST_EVENTS = 10
"""Background events that a threshold must have above it."""

FALSE_POSITIVE_RATE = 1e-3
"""Upper end of the part of the ROC curve that is averaged."""

LEAST_WINDOWS = round(LEAST_EVENTS / FALSE_POSITIVE_RATE)
"""Windows without a signal that this takes."""

SPACINGS = {"hour": 3600.0, "day": 86400.0}
"""Time between two false alarms at the rates in question, s."""

LEAST_CAUSES = 5
"""Independent stretches of strain that a threshold's background must come from."""

DEPLOYED = 10
"""What a seed is for, beside ``train.data.windows``."""

SELECTION_SEED = 1001
"""Seed of what chooses the best weights; their figures come from other noise."""

POSITIVES = 2560
BANK_SIZE = 1000
WAVEFORM_BATCH = 64


def stretch_filters(
    strain: NDArray[Any],
    geometry: Geometry,
    design: whitening.Design = whitening.design_filter,
) -> list[NDArray[Any]]:
    """Design the whitening filters of one sequence as they are made on the server.

    Args:
        strain: One detector's, [size].
        geometry: The analysis.
        design: Makes a filter of the periodograms.

    Returns:
        One filter for every ``psd_refresh_length`` of strain after the first, of the
        PSD of what came before.
    """
    spectra = whitening.periodograms(strain, geometry.fft_size, geometry.sample_rate)
    filters = []
    for due in range(geometry.psd_refresh_size, len(strain), geometry.psd_refresh_size):
        # Segments overlap by half, and the last begins one whole length before.
        count = 2 * due // geometry.fft_size - 1
        seen = spectra[max(0, count - geometry.max_periodograms) : count]
        filters.append(design(seen, geometry))
    return filters


def apply_filters(
    strain: NDArray[Any], filters: Sequence[NDArray[Any]], geometry: Geometry
) -> NDArray[Any]:
    """Whiten strain by the filters of a sequence; see ``whiten_stretch``.

    Args:
        strain: One detector's, or what was added to it, [size].
        filters: From ``stretch_filters``.
        geometry: The analysis.
    """
    refresh, half = geometry.psd_refresh_size, geometry.filter_size // 2
    begin, pieces = whitened_start(geometry), []
    for number, taps in enumerate(filters, 1):
        end = min(len(strain) - half, (number + 1) * refresh - half)
        pieces.append(whitening.whiten(strain[begin - half : end + half], taps))
        begin = end
    result: NDArray[Any] = np.concatenate(pieces).astype(np.float32)
    return result


def whitened_start(geometry: Geometry) -> int:
    """Sample of a sequence's strain that its first whitened sample belongs to."""
    first = (geometry.warmup_strides + 1) * geometry.stride_size
    return first - geometry.filter_size // 2 - geometry.kernel_size


def whiten_stretch(
    strain: NDArray[Any],
    geometry: Geometry,
    added: NDArray[Any] | None = None,
    design: whitening.Design = whitening.design_filter,
) -> NDArray[Any]:
    """Whiten a stretch as one sequence is whitened on the server.

    The PSD of what came before is made anew every ``psd_refresh_length``.

    Args:
        strain: One detector's, [size]; gives the PSD.
        geometry: The analysis.
        added: What is whitened instead, by the same filters, [size].
        design: Makes a filter of the periodograms.

    Returns:
        Whitened strain, float32: from the begin of the kernel of the first valid score
        to half a filter before the end.
    """
    filters = stretch_filters(strain, geometry, design)
    return apply_filters(strain if added is None else added, filters, geometry)


def partial_auroc(noise: Tensor, signal: Tensor, limit: float) -> float:
    """Mean share of signals found at false-positive rates from 0 to ``limit``.

    This is the area under that part of the ROC curve over its largest possible value.

    Args:
        noise: Scores of windows without a signal, [n].
        signal: Scores of windows with one, [m].
        limit: Largest false-positive rate.

    Returns:
        From 0 to 1; NaN where fewer than ``LEAST_EVENTS`` noise windows lie in
        that part.
    """
    count = int(limit * len(noise))
    if count < LEAST_EVENTS:
        return math.nan
    loudest = noise.sort(descending=True).values[:count]
    return float((signal[:, None] > loudest).double().mean())


class Glitch(NamedTuple):
    """A glitch in a whitened stretch.

    Attributes:
        ifo: Which detector has it, by index.
        center: Sample of the stretch at which it is centred.
        snr: Its SNR in that detector.
    """

    ifo: int
    center: int
    snr: float


@dataclass(frozen=True)
class Injections:
    """A whitened stretch with mergers in it.

    Attributes:
        strain: Whitened, float32, [ifos, time].
        mergers: Sample of it at which each merger reaches the first detector, [n].
        snrs: Network SNR of each, [n].
        ifo_snrs: SNR in each detector, [n, ifos].
        masses: Component masses, detector frame, heavier first, solar masses, [n, 2].
        glitches: Those in the stretch.
    """

    strain: Tensor
    mergers: NDArray[Any]
    snrs: NDArray[Any]
    ifo_snrs: NDArray[Any]
    masses: NDArray[Any]
    glitches: list[Glitch]


class Piece(NamedTuple):
    """Scores of one gap-free part of a timeslide.

    Attributes:
        stretch: Which background stretch it is of.
        begins: Sample of the stretch at which the first kernel begins in each detector,
            [ifos].
        scores: Of successive strides, [strides].
    """

    stretch: int
    begins: NDArray[Any]
    scores: NDArray[Any]


@dataclass(frozen=True)
class Slides:
    """Events of all timeslides, and where in the strain they come from.

    Attributes:
        statistics: Of each event, [n].
        places: Time of each event in the strain of each detector, s; stretches follow
            one another, far apart, [ifos, n].
        livetime: Of all slides together, s.
        kernel_length: Time that one score looks at, s.
    """

    statistics: NDArray[Any]
    places: NDArray[Any]
    livetime: float
    kernel_length: float

    @property
    def background(self) -> Background:
        """The events without their places."""
        return Background.of(self.statistics, self.livetime)

    def causes(self, statistic: float) -> int:
        """How many independent accidents the events at least as loud come from.

        A loud glitch meets other strain in each slide, and may be loud in many:
        events that share a kernel's time in a detector are of one cause.
        """
        loud = self.statistics >= statistic
        count = int(loud.sum())
        edges = []
        for place in self.places[:, loud]:
            order = np.argsort(place)
            near = np.diff(place[order]) <= self.kernel_length
            edges.append(np.stack([order[:-1][near], order[1:][near]]))
        one, other = np.concatenate(edges, axis=1)
        graph = sparse.coo_array((np.ones(len(one)), (one, other)), (count, count))
        return int(sparse.csgraph.connected_components(graph)[0])

    def effective_count(self, statistic: float) -> float:
        """Effective number of independent events at least as loud, n² / variance of n.

        The same data of a detector are met in many slides. The variance of the number n
        of events is therefore that of data clustered in two or more ways (Cameron,
        Gelbach and Miller 2011, J. Bus. Econ. Stat. 29, 238, eq. 2.11): the sum over
        detectors of the variance from blocks of one detector's time, less what events
        share in all detectors, which would count once for each of them. Unlike
        ``causes``, it holds where there are so many events that all are linked.

        Returns:
            At most n; 0 without events.
        """
        loud = self.statistics >= statistic
        count = int(loud.sum())
        if not count:
            return 0.0
        blocks = (self.places[:, loud] // CLUSTER_LENGTH).astype(np.int64)
        variance = 0.0
        for place, every in zip(blocks, self.places, strict=True):
            _, sizes = np.unique(place, return_counts=True)
            total = len(np.unique(every // CLUSTER_LENGTH))
            variance += float((sizes**2).sum()) - count**2 / total
        _, sizes = np.unique(blocks, axis=1, return_counts=True)
        shared = float((sizes**2).sum())
        variance -= (len(blocks) - 1) * shared
        return count**2 / max(variance, shared)


def project_mergers(
    masses: NDArray[Any],
    spins: NDArray[Any],
    snrs: NDArray[Any],
    asds: NDArray[Any],
    geometry: Geometry,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mergers as the detectors see them, of random sky position and orientation.

    Args:
        masses: Heavier and lighter, detector frame, solar masses, [n, 2].
        spins: Dimensionless aligned spins, [n, 2].
        snrs: Network SNR of each above the highpass, [n].
        asds: Amplitude spectral densities that define it, evenly spaced from 0 Hz to
            half the sample rate, 1/sqrt(Hz), [ifos, bins].
        geometry: Detectors, sample rate and highpass.

    Returns:
        Strain, float64, [n, ifos, SIGNAL_LENGTH * sample_rate], that reaches the first
        detector MERGER_LENGTH after its start; and SNR in each detector, [n, ifos].
    """
    n, rate = len(snrs), geometry.sample_rate
    components, along = torch.from_numpy(masses), torch.from_numpy(spins)
    waveforms = face_on_waveforms(
        components[:, 0],
        components[:, 1],
        along[:, 0],
        along[:, 1],
        round(SIGNAL_LENGTH * rate),
        round(MERGER_LENGTH * rate),
        rate,
    )
    strain, _ = project(waveforms, sky(n), geometry.ifos, rate)
    frequencies = np.fft.rfftfreq(strain.shape[-1], 1 / rate)
    grid = np.linspace(0, rate / 2, asds.shape[1])
    psd = np.stack([np.interp(frequencies, grid, asd) ** 2 for asd in asds])
    found = compute_ifo_snr(strain, torch.from_numpy(psd), rate, geometry.highpass)
    factors = torch.from_numpy(snrs) / found.square().sum(1).sqrt()
    scaled: NDArray[Any] = (strain * factors[:, None, None]).numpy()
    return scaled, (found * factors[:, None]).numpy()


def check_kernels(longest: Geometry, geometry: Geometry) -> None:
    """Check that strain for one kernel holds that for another.

    Args:
        longest: What the strain is made for.
        geometry: Like it in all but ``kernel_length``, which is no longer.

    Raises:
        ConfigurationError: It differs in something else.
    """
    wanted = replace(geometry, kernel_length=longest.kernel_length)
    if wanted != longest or geometry.kernel_length > longest.kernel_length:
        raise ConfigurationError(
            "validation: expected geometries that differ in kernel_length alone, the "
            f"longest first, found {longest.to_json()} and {geometry.to_json()}"
        )


class DeployedValidation:
    """Draws strain once, and judges networks by it.

    Args:
        geometry: Kernel, stride and whitening.
        settings: Noise curves, masses, SNRs and glitches, as in training; injections
            have the SNRs of the training's end.
        seed: Seed of everything that is drawn; another than in training.
        length: Background strain, s, in ``STRETCHES`` stretches.
        slides: Timeslides of it, for a network whose frames can be shifted.
        injections: Mergers, one every ``INJECTION_SPACING`` of other strain.
        windows: Single windows without a signal; there are none with a signal either
            if 0, and no loss.
        plain_slides: Timeslides for any other network, which runs again for each; no
            share at a false-alarm rate is given for none.
        sources: Where each detector's strain comes from; the settings' noise curves
            if None.
        stretches: Background stretches, each with sources and glitches of its own.
        loud_injections: Further mergers, of the same distribution of SNR above
            ``loud_snr`` alone.
        loud_snr: Smallest network SNR of these.

    Raises:
        ConfigurationError: The stretches are too short for as many slides.
    """

    def __init__(
        self,
        geometry: Geometry,
        settings: WindowSettings,
        seed: int,
        *,
        length: float = 4096.0,
        slides: int = 216,
        injections: int = 1000,
        windows: int = 40_960,
        plain_slides: int = 0,
        sources: Mapping[str, StretchSource] | None = None,
        stretches: int = STRETCHES,
        loud_injections: int = 0,
        loud_snr: float = 15.0,
    ) -> None:
        self.geometry, self.settings = geometry, settings
        self.slides, self.plain_slides = slides, plain_slides
        self._rng = np.random.default_rng([seed, DEPLOYED])
        each = round(length / stretches * geometry.inference_sampling_rate)
        self._size = each * geometry.stride_size
        usable = each - geometry.warmup_strides
        # The last detector is shifted most, and stays a step short of the whole circle.
        steps = (len(geometry.ifos) - 1) * max(slides, plain_slides) + 1
        step = usable // steps * geometry.stride_length
        # Kernels and filters of two slides share no strain then.
        least = geometry.kernel_length + geometry.fduration + geometry.stride_length
        if step < least:
            raise ConfigurationError(
                f"validation: expected at least {least:g} s between two of the "
                f"{slides} slides, found {step:g} s in {stretches} stretches of "
                f"{self._size / geometry.sample_rate:g} s; ask for fewer slides or "
                "for more strain"
            )
        self._shift_size = round(step * geometry.sample_rate)
        self.sources = sources or {
            ifo: SimulatedStretches(
                ifo, settings.runs, geometry.sample_rate, settings.variation
            )
            for ifo in geometry.ifos
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            drawn = [self._draw_stretch() for _ in range(stretches)]
            self._background = [strain for strain, _ in drawn]
            self.glitches = [glitches for _, glitches in drawn]
            self.injections = self._draw_injections(injections)
            self.injections += self._draw_injections(loud_injections, loud_snr)
            self._windows, self._labels = self._draw_windows(windows, seed)

    def with_kernel_of(self, geometry: Geometry) -> Self:
        """The same strain for networks whose kernel is shorter.

        Args:
            geometry: Like this validation's in all but ``kernel_length``, which is no
                longer.

        Raises:
            ConfigurationError: It differs in something else.
        """
        own = self.geometry
        check_kernels(own, geometry)
        # The first kernel ends where it did.
        cut = own.kernel_size - geometry.kernel_size

        def moved(glitches: list[Glitch]) -> list[Glitch]:
            return [one._replace(center=one.center - cut) for one in glitches]

        result = copy.copy(self)
        result.geometry = geometry
        result._background = [strain[:, cut:] for strain in self._background]
        result.glitches = [moved(glitches) for glitches in self.glitches]
        result.injections = [
            replace(
                one,
                strain=one.strain[:, cut:],
                mergers=one.mergers - cut,
                glitches=moved(one.glitches),
            )
            for one in self.injections
        ]
        result._windows = self._windows[..., cut:]
        return result

    def _draw_strain(
        self, size: int
    ) -> tuple[NDArray[Any], NDArray[Any], list[Glitch]]:
        """Strain with glitches, ASDs, and the glitches.

        Returns:
            [ifos, size], [ifos, bins], and the glitches by their place in what is
            whitened of the strain.
        """
        geometry, settings, rng = self.geometry, self.settings, self._rng
        rate = geometry.sample_rate
        glitch_size = round(GLITCH_LENGTH * rate)
        low, high = np.log([settings.min_glitch_snr, settings.max_disturbance_snr])
        strains, asds, glitches = [], [], []
        for index, ifo in enumerate(geometry.ifos):
            strain, asd = self.sources[ifo].draw(size, rng)
            for _ in range(rng.poisson(GLITCH_RATE * size / rate)):
                start = rng.integers(0, size - glitch_size + 1)
                shape = draw_glitch(
                    glitch_size, glitch_size / 2, rate, rng, settings.glitch_weights
                )
                snr = np.exp(rng.uniform(low, high))
                strain[start : start + glitch_size] += scale_to_snr(
                    shape, asd, snr, rate, geometry.highpass
                )
                center = int(start) + glitch_size // 2 - whitened_start(geometry)
                glitches.append(Glitch(index, center, float(snr)))
            strains.append(strain)
            asds.append(asd)
        return np.stack(strains), np.stack(asds), glitches

    def _draw_stretch(self) -> tuple[Tensor, list[Glitch]]:
        strain, _, glitches = self._draw_strain(self._size)
        whitened = np.stack([whiten_stretch(one, self.geometry) for one in strain])
        return torch.from_numpy(whitened), glitches

    def _draw_injections(self, wanted: int, min_snr: float = 0.0) -> list[Injections]:
        """Mergers at a regular spacing with jitter, in stretches of their own."""
        geometry, rate = self.geometry, self.geometry.sample_rate
        spacing_size = round(INJECTION_SPACING * rate)
        warmup_size = geometry.psd_min_size + spacing_size
        room = max(1, (self._size - warmup_size) // spacing_size - 1)
        result: list[Injections] = []
        for done in range(0, wanted, room):
            n = min(room, wanted - done)
            size = warmup_size + (n + 1) * spacing_size
            size = -(-size // geometry.stride_size) * geometry.stride_size
            strain, asds, glitches = self._draw_strain(size)
            jitter = INJECTION_JITTER * rate * self._rng.uniform(-1, 1, n)
            times = warmup_size + spacing_size * np.arange(n) + jitter.round()
            times = times.astype(int)
            snrs, loud = self._draw_snrs(n, min_snr), strain.copy()
            ifo_snrs, masses = [], []
            for first in range(0, n, WAVEFORM_BATCH):
                batch = slice(first, first + WAVEFORM_BATCH)
                signals, ifo_snr, mass = self._draw_signals(snrs[batch], asds)
                ifo_snrs.append(ifo_snr)
                masses.append(mass)
                start_size = round(MERGER_LENGTH * rate)
                for time, signal in zip(times[batch], signals, strict=True):
                    start = time - start_size
                    loud[:, start : start + signal.shape[-1]] += signal
            whitened = [
                whiten_stretch(one, geometry, other)
                for one, other in zip(strain, loud, strict=True)
            ]
            result.append(
                Injections(
                    torch.from_numpy(np.stack(whitened)),
                    times - whitened_start(geometry),
                    snrs,
                    np.concatenate(ifo_snrs),
                    np.concatenate(masses),
                    glitches,
                )
            )
        return result

    def _draw_snrs(self, n: int, min_snr: float = 0.0) -> NDArray[Any]:
        """Network SNRs of the training's end: a power law, some louder.

        Args:
            n: How many.
            min_snr: Those below are drawn again.
        """
        settings, limits = (
            self.settings,
            (self.settings.last_snr, self.settings.max_snr),
        )
        loud = self._rng.random(n) < settings.loud_share
        faint = draw_snrs(n, limits, settings.snr_index, self._rng)
        snrs: NDArray[Any] = np.where(loud, draw_snrs(n, limits, -1, self._rng), faint)
        low = snrs < min_snr
        if low.any():
            snrs[low] = self._draw_snrs(int(low.sum()), min_snr)
        return snrs

    def _draw_signals(
        self, snrs: NDArray[Any], asds: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Draw mergers and project them.

        Returns:
            Strain, float64, [n, ifos, SIGNAL_LENGTH * sample_rate]; SNR in each
            detector, [n, ifos]; component masses, [n, 2].
        """
        masses, spins = draw_components(len(snrs), self.settings, self._rng)
        return *project_mergers(masses, spins, snrs, asds, self.geometry), masses

    def _draw_windows(self, noise: int, seed: int) -> tuple[Tensor, Tensor]:
        """Windows and labels as in training, with fewer signals."""
        if not noise:
            shape = (0, len(self.geometry.ifos), self.geometry.kernel_size)
            return torch.empty(shape).half(), torch.empty(0)
        bank_size = min(BANK_SIZE, self.settings.bank_size)
        settings = replace(self.settings, bank_size=bank_size, refresh_batches=1)
        maker = WindowMaker(self.geometry, settings, seed, self.sources)
        windows, labels, index = [], [], 0
        missing = {1: POSITIVES, 0: noise}
        while missing[0] > 0:
            batch, label, *_ = maker.batch(index, settings.last_snr)
            index += 1
            for value in missing:
                chosen = torch.nonzero(label == value).flatten()[: missing[value]]
                # Half precision: rounded by 1/2000 at most, for half the memory.
                windows.append(batch[chosen].half())
                labels.append(label[chosen])
                missing[value] -= len(chosen)
        return torch.cat(windows), torch.cat(labels)

    @torch.inference_mode()
    def evaluate(self, network: Any) -> dict[str, float]:
        """Judge a network.

        Args:
            network: Any of the three kinds; it is not changed.

        Returns:
            ``valid_loss``, the binary cross-entropy in equal parts of windows with and
            without a signal; ``valid_auroc``, see ``partial_auroc``;
            ``valid_found_hour`` and ``valid_found_day``, the share of the injections
            found at these false-alarm rates, NaN where the background has fewer than
            ``LEAST_EVENTS`` events above the threshold, or they come from fewer
            than ``LEAST_CAUSES``; ``valid_causes_hour`` and ``…_day``, from how
            many, see ``Slides.causes``; ``valid_livetime``, that of the
            background, s.
        """
        network = network.fused()
        scores = score_windows(network, self._windows).cpu()
        signal, noise = scores[self._labels > 0], scores[self._labels == 0]
        loss = torch.nn.functional.softplus(-signal).mean()
        loss = (loss + torch.nn.functional.softplus(noise).mean()) / 2
        result = {
            "valid_loss": float(loss),
            "valid_auroc": partial_auroc(noise, signal, FALSE_POSITIVE_RATE),
            **{f"valid_found_{name}": math.nan for name in SPACINGS},
            **{f"valid_causes_{name}": math.nan for name in SPACINGS},
            "valid_livetime": 0.0,
        }
        slides = self.run_slides(network)
        if slides is None:
            return result
        result["valid_livetime"] = slides.livetime
        loudest = self.run_injections(network)
        for name, spacing in SPACINGS.items():
            if slides.livetime < LEAST_EVENTS * spacing:
                continue
            limit = slides.background.threshold_at_far(JULIAN_YEAR / spacing)
            causes = slides.causes(limit)
            result[f"valid_causes_{name}"] = causes
            if causes >= LEAST_CAUSES:
                result[f"valid_found_{name}"] = float((loudest >= limit).mean())
        return result

    @torch.inference_mode()
    def run_slides(
        self, network: Any, seen: Callable[[Piece], None] | None = None
    ) -> Slides | None:
        """Run a network over all slides of all stretches.

        Args:
            network: In evaluation mode.
            seen: Called with each piece of each slide, for what is wanted of its scores
                beside the events.

        Returns:
            Its events; None where it has no slides, as one detector alone.
        """
        geometry, sliding = self.geometry, has_slides(network)
        if len(geometry.ifos) < 2:
            return None
        slides = self.slides if sliding else self.plain_slides
        reach = cluster_strides(geometry)
        statistics, places, strides = [], [], 0
        kernel = kernel_frames(network) if sliding else 0
        for number, strain in enumerate(self._background):
            frames = frames_of(network, strain) if sliding else strain
            for slide in range(1, slides + 1):
                size = slide * self._shift_size
                if sliding:
                    shift = size // geometry.frame_size
                    parts = score_slide(network, frames, shift, kernel)
                else:
                    parts = self._score_strain(network, strain, size)
                for starts, part in parts:
                    series = part.cpu().numpy()
                    strides += len(series)
                    events = np.flatnonzero(find_events(series, reach))
                    statistics.append(series[events])
                    first = np.array(starts) * (geometry.frame_size if sliding else 1)
                    begins = events * geometry.stride_size + first[:, None]
                    # Stretches are as far apart as one is long.
                    places.append(begins + 2 * number * self._size)
                    if seen is not None:
                        seen(Piece(number, first, series))
        if not strides:
            return None
        return Slides(
            np.concatenate(statistics),
            np.concatenate(places, axis=1) / geometry.sample_rate,
            strides * geometry.stride_length,
            geometry.kernel_length,
        )

    def _score_strain(
        self, network: Any, strain: Tensor, shift: int
    ) -> list[tuple[list[int], Tensor]]:
        """As ``score_slide``, with a network that sees all detectors at once."""
        parts = []
        for begins, size in slide_pieces(strain.shape[-1], shift, len(strain)):
            if size >= self.geometry.kernel_size:
                slid = torch.stack(
                    [
                        row[begin : begin + size]
                        for row, begin in zip(strain, begins, strict=True)
                    ]
                )
                parts.append((begins, score_stretch(network, slid)[0]))
        return parts

    @torch.inference_mode()
    def run_injections(
        self,
        network: Any,
        seen: Callable[[Injections, Tensor], None] | None = None,
    ) -> NDArray[Any]:
        """Run a network over all injections.

        Args:
            network: In evaluation mode.
            seen: Called with each stretch and its frames, [ifos, channels, frames], if
                the network has slides.

        Returns:
            Statistic of the event that belongs to each injection, else -inf, [n].
        """
        geometry, sliding = self.geometry, has_slides(network)
        kernel = kernel_frames(network) if sliding else 0
        reach = cluster_strides(geometry)
        scored, residuals = [], []
        for stretch in self.injections:
            peaks: Tensor | None
            if sliding:
                frames = frames_of(network, stretch.strain)
                summed = frames.sum(0)
                tensor, peaks = score_frames_and_peaks(network, summed, kernel)
                if seen is not None:
                    seen(stretch, frames)
            else:
                tensor, peaks = score_stretch(network, stretch.strain)
            scores = tensor.cpu().numpy()
            places = np.arange(len(scores)) * float(geometry.stride_size)
            if peaks is not None:
                places += peaks.cpu().numpy() * geometry.frame_size
            scored.append((scores, places))
            # How far the merger lies behind, by the loudest kernel that it is in.
            for merger, snr in zip(stretch.mergers, stretch.snrs, strict=True):
                last = int(merger) // geometry.stride_size
                first = max(0, last - geometry.kernel_size // geometry.stride_size + 1)
                if snr >= np.median(stretch.snrs) and first < len(scores):
                    best = first + int(scores[first : last + 1].argmax())
                    residuals.append(merger - places[best])
        offset = float(np.median(residuals))
        result = []
        for stretch, (scores, places) in zip(self.injections, scored, strict=True):
            chosen = np.flatnonzero(find_events(scores, reach))
            nanoseconds = 1e9 / geometry.sample_rate
            matched = match_injections(
                (stretch.mergers * nanoseconds).astype(np.int64),
                ((places[chosen] + offset) * nanoseconds).astype(np.int64),
                scores[chosen],
                MATCH_WINDOW,
            )
            statistics = np.append(scores[chosen], -np.inf)
            result.append(statistics[matched])
        return np.concatenate(result)

"""Validation as in deployment: long stretches, timeslides, injections and events.

All strain is drawn once, so that networks, and one network at several steps, are
compared on the same data. The validation measures

- the efficiency at false-alarm rates of one an hour and one a day. An injection is
  found if an event above the threshold lies within ``MATCH_WINDOW`` of its merger;
  events are the loudest scores within 8 s, as in a search.
- on single windows as in training, the loss and the area under the ROC curve below a
  false-positive rate of 1e-3, the part that matters to a search.

Timeslides are cheap for a network with a single-detector frontend, whose frames can be
shifted. Any other network runs again for each slide.
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
"""Number of background stretches, drawn independently."""

GLITCH_RATE = 0.01
"""Glitches of each detector, Hz: 0.6 a minute.

Between those of H1 and L1 in O3, 0.3 and 1.1 a minute (arXiv:2111.03606, section III).
"""

GLITCH_LENGTH = 4.0
INJECTION_SPACING = 12.0
"""Mean time between injections, s.

Even with the jitter of both, two injections are farther apart than events (8 s) and
kernels reach, so that a loud merger doesn't hide a fainter one's event.
"""

INJECTION_JITTER = 1.0
"""Largest offset of an injection from the regular spacing, s."""

MIN_EVENTS = 10
"""Fewest background events above a threshold for which efficiency is reported."""

FALSE_POSITIVE_RATE = 1e-3
"""Upper end of the partial ROC curve."""

MIN_WINDOWS = round(MIN_EVENTS / FALSE_POSITIVE_RATE)
"""Fewest windows without a signal for a partial ROC curve."""

SPACINGS = {"hour": 3600.0, "day": 86400.0}
"""Mean time between false alarms by name of the rate, s."""

MIN_CAUSES = 5
"""Fewest independent causes of the background events above a threshold."""

DEPLOYED = 10
"""Purpose of a seed; ``train.data.windows`` has others."""

SELECTION_SEED = 1001
"""Seed of the validation that chooses the best weights.

The final validation has another seed, so that its results are unbiased.
"""

POSITIVES = 2560
BANK_SIZE = 1000
WAVEFORM_BATCH = 64


def stretch_filters(
    strain: NDArray[Any],
    geometry: Geometry,
    design: whitening.Design = whitening.design_filter,
) -> list[NDArray[Any]]:
    """Design the whitening filters of one sequence, as the server does.

    Args:
        strain: One detector's strain, [size].
        geometry: PSD and filter lengths.
        design: Designs a filter from periodograms.

    Returns:
        One filter for each ``psd_refresh_length`` of strain after the first, from the
        PSD of the preceding strain.
    """
    spectra = whitening.periodograms(strain, geometry.fft_size, geometry.sample_rate)
    filters = []
    for due in range(geometry.psd_refresh_size, len(strain), geometry.psd_refresh_size):
        # Periodograms overlap by half; count those that end by ``due``.
        count = 2 * due // geometry.fft_size - 1
        preceding = spectra[max(0, count - geometry.max_periodograms) : count]
        filters.append(design(preceding, geometry))
    return filters


def apply_filters(
    strain: NDArray[Any], filters: Sequence[NDArray[Any]], geometry: Geometry
) -> NDArray[Any]:
    """Whiten strain with the filters of its sequence, see ``whiten_stretch``.

    Args:
        strain: One detector's strain, with or without injections, [size].
        filters: From ``stretch_filters``.
        geometry: PSD and filter lengths.

    Returns:
        Whitened strain, float32, from ``whitened_start`` to half a filter before the
        end.
    """
    refresh, half = geometry.psd_refresh_size, geometry.filter_size // 2
    start, pieces = whitened_start(geometry), []
    for number, taps in enumerate(filters, 1):
        end = min(len(strain) - half, (number + 1) * refresh - half)
        pieces.append(whitening.whiten(strain[start - half : end + half], taps))
        start = end
    result: NDArray[Any] = np.concatenate(pieces).astype(np.float32)
    return result


def whitened_start(geometry: Geometry) -> int:
    """Index of a sequence's first whitened sample in its strain.

    It is the first sample of the first valid score's kernel.
    """
    first = (geometry.warmup_strides + 1) * geometry.stride_size
    return first - geometry.filter_size // 2 - geometry.kernel_size


def whiten_stretch(
    strain: NDArray[Any],
    geometry: Geometry,
    injected: NDArray[Any] | None = None,
    design: whitening.Design = whitening.design_filter,
) -> NDArray[Any]:
    """Whiten a stretch as one sequence, as the server does.

    The PSD is that of the preceding strain, renewed every ``psd_refresh_length``.

    Args:
        strain: One detector's strain, from which PSDs are estimated, [size].
        geometry: PSD and filter lengths.
        injected: The strain with injections, whitened in its place with the same
            filters, [size].
        design: Designs a filter from periodograms.

    Returns:
        Whitened strain, float32, from the start of the first valid score's kernel to
        half a filter before the end.
    """
    filters = stretch_filters(strain, geometry, design)
    return apply_filters(strain if injected is None else injected, filters, geometry)


def partial_auroc(noise: Tensor, signal: Tensor, limit: float) -> float:
    """Normalised area under the ROC curve at false-positive rates up to ``limit``.

    This is the mean efficiency at these rates.

    Args:
        noise: Scores of windows without a signal, [n].
        signal: Scores of windows with a signal, [m].
        limit: Largest false-positive rate.

    Returns:
        From 0 to 1; NaN if fewer than ``MIN_EVENTS`` noise windows lie in that range.
    """
    count = int(limit * len(noise))
    if count < MIN_EVENTS:
        return math.nan
    loudest = noise.sort(descending=True).values[:count]
    return float((signal[:, None] > loudest).double().mean())


class Glitch(NamedTuple):
    """A simulated glitch in a whitened stretch.

    Attributes:
        ifo: Index of its detector.
        center: Its centre, a sample of the whitened stretch.
        snr: Its SNR in that detector.
    """

    ifo: int
    center: int
    snr: float


@dataclass(frozen=True)
class Injections:
    """A whitened stretch with injections.

    Attributes:
        strain: Whitened strain, float32, [ifos, time].
        mergers: Sample at which each merger reaches the first detector, [n].
        snrs: Network SNR of each merger, [n].
        ifo_snrs: SNR of each merger in each detector, [n, ifos].
        masses: Component masses, detector frame, heavier first, solar masses, [n, 2].
        glitches: Glitches in the stretch.
    """

    strain: Tensor
    mergers: NDArray[Any]
    snrs: NDArray[Any]
    ifo_snrs: NDArray[Any]
    masses: NDArray[Any]
    glitches: list[Glitch]


class Piece(NamedTuple):
    """Scores of one gap-free piece of a timeslide.

    Attributes:
        stretch: Index of the background stretch.
        begins: First sample of the first kernel in each detector's stretch, [ifos].
        scores: Scores of successive strides, [strides].
    """

    stretch: int
    begins: NDArray[Any]
    scores: NDArray[Any]


@dataclass(frozen=True)
class Slides:
    """Background events of all timeslides, with their times in each detector.

    Attributes:
        statistics: Statistic of each event, [n].
        times: Time of each event in each detector's strain, s, [ifos, n]. Stretches are
            laid out one after the other, more than a kernel apart.
        livetime: Livetime of all slides, s.
        kernel_length: Length of a kernel, s.
    """

    statistics: NDArray[Any]
    times: NDArray[Any]
    livetime: float
    kernel_length: float

    @property
    def background(self) -> Background:
        """The background, without the events' times."""
        return Background.of(self.statistics, self.livetime)

    def causes(self, statistic: float) -> int:
        """Number of independent causes of the events at least as loud.

        One loud glitch can cause an event in many slides. Events within a kernel of
        each other in any detector's strain are therefore linked, and each set of
        linked events counts as one cause.
        """
        loud = self.statistics >= statistic
        count = int(loud.sum())
        edges = []
        for times in self.times[:, loud]:
            order = np.argsort(times)
            near = np.diff(times[order]) <= self.kernel_length
            edges.append(np.stack([order[:-1][near], order[1:][near]]))
        first, second = np.concatenate(edges, axis=1)
        graph = sparse.coo_array((np.ones(len(first)), (first, second)), (count, count))
        return int(sparse.csgraph.connected_components(graph)[0])

    def effective_count(self, statistic: float) -> float:
        """Effective number of independent events at least as loud, n² / var(n).

        All slides use the same strain, so that the n events are not independent. Their
        variance is that of data clustered in several ways, by the time in each detector
        (Cameron, Gelbach and Miller 2011, J. Bus. Econ. Stat. 29, 238, eq. 2.11): the
        sum over detectors of the variance between blocks of that detector's time, minus
        the part from events that share a block in all detectors, which the sum counts
        once per detector. Unlike ``causes``, it also works where so many events are
        loud that all are linked.

        Returns:
            At most n; 0 without events.
        """
        loud = self.statistics >= statistic
        count = int(loud.sum())
        if not count:
            return 0.0
        blocks = (self.times[:, loud] // CLUSTER_LENGTH).astype(np.int64)
        variance = 0.0
        for ifo_blocks, ifo_times in zip(blocks, self.times, strict=True):
            _, sizes = np.unique(ifo_blocks, return_counts=True)
            total = len(np.unique(ifo_times // CLUSTER_LENGTH))
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
    """Simulate mergers in each detector, with isotropic sky position and orientation.

    Args:
        masses: Heavier and lighter mass, detector frame, solar masses, [n, 2].
        spins: Dimensionless aligned spins, [n, 2].
        snrs: Network SNRs above the highpass, [n].
        asds: Amplitude spectral densities that define the SNR, at evenly spaced
            frequencies from 0 Hz to half the sample rate, 1/sqrt(Hz), [ifos, bins].
        geometry: Detectors, sample rate and highpass.

    Returns:
        Strain, float64, [n, ifos, SIGNAL_LENGTH * sample_rate], with the merger
        MERGER_LENGTH after its start in the first detector; and the SNR in each
        detector, [n, ifos].
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
    ifo_snrs = compute_ifo_snr(strain, torch.from_numpy(psd), rate, geometry.highpass)
    factors = torch.from_numpy(snrs) / ifo_snrs.square().sum(1).sqrt()
    scaled: NDArray[Any] = (strain * factors[:, None, None]).numpy()
    return scaled, (ifo_snrs * factors[:, None]).numpy()


def check_kernels(longest: Geometry, geometry: Geometry) -> None:
    """Check that a validation's strain can be used with a shorter kernel.

    Args:
        longest: Geometry that the strain was drawn for.
        geometry: Geometry to use it with; it may differ in a shorter ``kernel_length``.

    Raises:
        ConfigurationError: The kernel is longer, or the geometries differ in another
            value.
    """
    expected = replace(geometry, kernel_length=longest.kernel_length)
    if expected != longest or geometry.kernel_length > longest.kernel_length:
        raise ConfigurationError(
            "validation: expected geometries that differ in kernel_length alone, the "
            f"longest first, found {longest.to_json()} and {geometry.to_json()}"
        )


class DeployedValidation:
    """Strain with injections, drawn once, on which networks are evaluated.

    Args:
        geometry: Kernel, stride and whitening.
        settings: Noise curves, masses, SNRs and glitches, as in training. Injections
            have the SNR distribution of the training's end.
        seed: Seed of all draws; must differ from the training's.
        length: Background strain in total, s.
        slides: Timeslides, for networks with a single-detector frontend.
        injections: Number of injections, one every ``INJECTION_SPACING`` of further
            strain.
        windows: Single windows without a signal; 0 leaves out single windows, and with
            them the loss.
        plain_slides: Timeslides for any other network, which runs again for each; 0
            leaves out the efficiency at false-alarm rates.
        sources: Strain of each detector; noise of the settings' noise curves if None.
        stretches: Background stretches, drawn independently.
        loud_injections: Further injections with a network SNR of at least ``loud_snr``,
            with the same distribution above it.
        loud_snr: Smallest network SNR of the loud injections.

    Attributes:
        injections: Stretches with injections.
        glitches: Glitches in each background stretch.

    Raises:
        ConfigurationError: The stretches are too short for that many slides.
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
        strides = round(length / stretches * geometry.inference_sampling_rate)
        self._size = strides * geometry.stride_size
        usable = strides - geometry.warmup_strides
        # The last detector's largest shift stays one step short of a full circle.
        steps = (len(geometry.ifos) - 1) * max(slides, plain_slides) + 1
        step = usable // steps * geometry.stride_length
        # So far apart, kernels and filters of two slides share no strain.
        min_step = geometry.kernel_length + geometry.fduration + geometry.stride_length
        if step < min_step:
            raise ConfigurationError(
                f"validation: expected at least {min_step:g} s between two of the "
                f"{max(slides, plain_slides)} slides, found {step:g} s in {stretches} "
                f"stretches of {self._size / geometry.sample_rate:g} s; use fewer "
                "slides or more strain"
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
        """The same strain, for networks with a shorter kernel.

        Args:
            geometry: Geometry of these networks; it may differ in a shorter
                ``kernel_length``.

        Raises:
            ConfigurationError: The kernel is longer, or the geometry differs in another
                value.
        """
        own = self.geometry
        check_kernels(own, geometry)
        # Cut the start of each stretch, so that the first kernel's end stays in place.
        cut = own.kernel_size - geometry.kernel_size

        def moved(glitches: list[Glitch]) -> list[Glitch]:
            return [glitch._replace(center=glitch.center - cut) for glitch in glitches]

        result = copy.copy(self)
        result.geometry = geometry
        result._background = [strain[:, cut:] for strain in self._background]
        result.glitches = [moved(glitches) for glitches in self.glitches]
        result.injections = [
            replace(
                stretch,
                strain=stretch.strain[:, cut:],
                mergers=stretch.mergers - cut,
                glitches=moved(stretch.glitches),
            )
            for stretch in self.injections
        ]
        result._windows = self._windows[..., cut:]
        return result

    def _draw_strain(
        self, size: int
    ) -> tuple[NDArray[Any], NDArray[Any], list[Glitch]]:
        """Draw strain with glitches.

        Returns:
            Strain, [ifos, size]; its ASDs, [ifos, bins]; and the glitches, by their
            position in the whitened strain.
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
        whitened = np.stack([whiten_stretch(row, self.geometry) for row in strain])
        return torch.from_numpy(whitened), glitches

    def _draw_injections(self, count: int, min_snr: float = 0.0) -> list[Injections]:
        """Draw stretches with injections at a regular spacing with jitter."""
        geometry, rate = self.geometry, self.geometry.sample_rate
        spacing_size = round(INJECTION_SPACING * rate)
        warmup_size = geometry.psd_min_size + spacing_size
        per_stretch = max(1, (self._size - warmup_size) // spacing_size - 1)
        result: list[Injections] = []
        for done in range(0, count, per_stretch):
            n = min(per_stretch, count - done)
            size = warmup_size + (n + 1) * spacing_size
            size = -(-size // geometry.stride_size) * geometry.stride_size
            strain, asds, glitches = self._draw_strain(size)
            jitter = INJECTION_JITTER * rate * self._rng.uniform(-1, 1, n)
            times = warmup_size + spacing_size * np.arange(n) + jitter.round()
            times = times.astype(int)
            snrs, injected = self._draw_snrs(n, min_snr), strain.copy()
            ifo_snrs, masses = [], []
            for first in range(0, n, WAVEFORM_BATCH):
                batch = slice(first, first + WAVEFORM_BATCH)
                signals, ifo_snr, mass = self._draw_signals(snrs[batch], asds)
                ifo_snrs.append(ifo_snr)
                masses.append(mass)
                start_size = round(MERGER_LENGTH * rate)
                for time, signal in zip(times[batch], signals, strict=True):
                    start = time - start_size
                    injected[:, start : start + signal.shape[-1]] += signal
            whitened = [
                whiten_stretch(row, geometry, injected_row)
                for row, injected_row in zip(strain, injected, strict=True)
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
        """Draw network SNRs as at the training's end: two power laws, mixed.

        Args:
            n: Number of SNRs.
            min_snr: Smaller SNRs are redrawn.
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
        """Draw mergers, see ``project_mergers``.

        Returns:
            Strain, float64, [n, ifos, SIGNAL_LENGTH * sample_rate]; SNR in each
            detector, [n, ifos]; component masses, solar masses, [n, 2].
        """
        masses, spins = draw_components(len(snrs), self.settings, self._rng)
        return *project_mergers(masses, spins, snrs, asds, self.geometry), masses

    def _draw_windows(self, noise: int, seed: int) -> tuple[Tensor, Tensor]:
        """Draw windows and labels as in training.

        Args:
            noise: Number of windows without a signal; ``POSITIVES`` have one.
            seed: Seed of the windows.

        Returns:
            Windows, float16, [n, ifos, kernel_size], and labels, 1 for a signal, [n].
        """
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
                # Half precision halves the memory, with relative errors below 1/2000.
                windows.append(batch[chosen].half())
                labels.append(label[chosen])
                missing[value] -= len(chosen)
        return torch.cat(windows), torch.cat(labels)

    @torch.inference_mode()
    def evaluate(self, network: Any) -> dict[str, float]:
        """Evaluate a network.

        Args:
            network: Network of any kind; it is not changed.

        Returns:
            ``valid_loss``, the binary cross-entropy at equal odds, nat;
            ``valid_auroc``, see ``partial_auroc``;
            ``valid_found_hour`` and ``valid_found_day``, the efficiency at a
            false-alarm rate of one an hour and one a day, NaN if fewer than
            ``MIN_EVENTS`` background events, or fewer than ``MIN_CAUSES`` independent
            causes, lie above the threshold;
            ``valid_causes_hour`` and ``valid_causes_day``, the number of causes, see
            ``Slides.causes``; ``valid_livetime``, the background's livetime, s.
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
            if slides.livetime < MIN_EVENTS * spacing:
                continue
            limit = slides.background.threshold_at_far(JULIAN_YEAR / spacing)
            causes = slides.causes(limit)
            result[f"valid_causes_{name}"] = causes
            if causes >= MIN_CAUSES:
                result[f"valid_found_{name}"] = float((loudest >= limit).mean())
        return result

    @torch.inference_mode()
    def run_slides(
        self, network: Any, on_piece: Callable[[Piece], None] | None = None
    ) -> Slides | None:
        """Score all timeslides of all background stretches.

        Args:
            network: In evaluation mode.
            on_piece: Called with the scores of each gap-free piece of each slide.

        Returns:
            Background events; None without slides, for example of a single detector.
        """
        geometry, sliding = self.geometry, has_slides(network)
        if len(geometry.ifos) < 2:
            return None
        slides = self.slides if sliding else self.plain_slides
        reach = cluster_strides(geometry)
        statistics, times, strides = [], [], 0
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
                    # A gap of a stretch's length lies between two stretches.
                    times.append(begins + 2 * number * self._size)
                    if on_piece is not None:
                        on_piece(Piece(number, first, series))
        if not strides:
            return None
        return Slides(
            np.concatenate(statistics),
            np.concatenate(times, axis=1) / geometry.sample_rate,
            strides * geometry.stride_length,
            geometry.kernel_length,
        )

    def _score_strain(
        self, network: Any, strain: Tensor, shift: int
    ) -> list[tuple[list[int], Tensor]]:
        """Like ``score_slide``, for a network without a single-detector frontend.

        Args:
            network: In evaluation mode.
            strain: Whitened, [ifos, time].
            shift: Circular shift of each detector against the one before it, samples.
        """
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
        on_stretch: Callable[[Injections, Tensor], None] | None = None,
    ) -> NDArray[Any]:
        """Score all injections.

        Args:
            network: In evaluation mode.
            on_stretch: Called with each stretch and its frames, [ifos, channels,
                frames], if the network has a single-detector frontend.

        Returns:
            Statistic of each injection's event, -inf if no event matches it, [n].
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
                if on_stretch is not None:
                    on_stretch(stretch, frames)
            else:
                tensor, peaks = score_stretch(network, stretch.strain)
            scores = tensor.cpu().numpy()
            positions = np.arange(len(scores)) * float(geometry.stride_size)
            if peaks is not None:
                positions += peaks.cpu().numpy() * geometry.frame_size
            scored.append((scores, positions))
            # Calibrate the merger's offset from the loudest of the kernels it lies in,
            # with the louder half of the injections.
            for merger, snr in zip(stretch.mergers, stretch.snrs, strict=True):
                last = int(merger) // geometry.stride_size
                first = max(0, last - geometry.kernel_size // geometry.stride_size + 1)
                if snr >= np.median(stretch.snrs) and first < len(scores):
                    best = first + int(scores[first : last + 1].argmax())
                    residuals.append(merger - positions[best])
        offset = float(np.median(residuals))
        result = []
        for stretch, (scores, positions) in zip(self.injections, scored, strict=True):
            chosen = np.flatnonzero(find_events(scores, reach))
            nanoseconds = 1e9 / geometry.sample_rate
            matched = match_injections(
                (stretch.mergers * nanoseconds).astype(np.int64),
                ((positions[chosen] + offset) * nanoseconds).astype(np.int64),
                scores[chosen],
                MATCH_WINDOW,
            )
            statistics = np.append(scores[chosen], -np.inf)
            result.append(statistics[matched])
        return np.concatenate(result)

"""Whitening choices in recorded strain: ``python -m benchmarks.bands FOLDER DATA``.

Lines that the whitening filter cannot resolve leave some bands of recorded strain too
loud. Judges each choice of the lengths of periodogram and filter, and gains for three
bands, with the shipped network without retraining, on the same noise and mergers:

- variance of the whitened noise in the bands of the matched filters;
- false-positive rate in timeslides, at thresholds from Gaussian noise;
- efficiency at SNR 8, at thresholds from the same noise;
- score of GW150914.

DATA is a folder with ``*LOSC_4_V2*.hdf5`` (32 s of H1 and L1 around GW150914, GWOSC),
``o3a_noise_500s.hdf`` (``train.data.noise.pycbc_series``) and ``psds/{ifo}/*.hdf``.
Writes ``FOLDER/bands.json`` and ``bands.md``, in about five minutes of one core.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.markdown import lay_out
from chirpwatch.background import Background
from chirpwatch.geometry import Geometry
from chirpwatch.gwosc_file import read_gwosc
from chirpwatch.strain import NANOSECONDS, Segment
from chirpwatch.train.data import whitening
from chirpwatch.train.data.noise.background import (
    BackgroundSettings,
    BackgroundStream,
)
from chirpwatch.train.data.noise.pycbc_series import read_series
from chirpwatch.train.data.noise.spectra import coloured_noise
from chirpwatch.train.data.signals.injections import MERGER_LENGTH
from chirpwatch.train.evaluation.deployment import (
    MIN_EVENTS,
    apply_filters,
    project_mergers,
    stretch_filters,
    whitened_start,
)
from chirpwatch.train.evaluation.heldout import SpectrumStretches
from chirpwatch.train.evaluation.rank import rank_event
from chirpwatch.train.evaluation.scoring import (
    frames_of,
    kernel_frames,
    score_slide,
    score_windows,
)
from chirpwatch.train.networks.checkpoint import (
    find_checkpoint,
    load_sliding,
)
from chirpwatch.train.networks.filters import band_windows
from chirpwatch.train.networks.models import Sliding

MODEL = "matched"
EVENT_TIME = 1126259462.42
"""GPS time of GW150914, s."""

MAX_FREQUENCY = 450.0
"""Highest frequency of the shipped bank's templates, Hz."""

BANDS = ("32 to 64 Hz", "64 to 100 Hz", "100 to 450 Hz")
MASSES = ((35.0, 35.0), (20.0, 20.0), (20.0, 10.0), (15.0, 8.5))
SNR = 8.0
RATES = (1e-3, 1e-4)
SEED = 4000
SLIDES, SHORT_SLIDES = 60, 240
"""Largest number of timeslides of a stretch, and of the 32 s around an event."""

MERGER_SPACING = 6.0
"""Time between mergers that are whitened together, s; no window contains two."""

MARGIN_LENGTH = 1.0
"""Half of the longest filter, s, so that all choices use the same strain."""

SPECTRA, SPECTRUM_LENGTH = (0, 5, 10, 15), 128
"""Indices of each detector's measured spectra, and the length of noise with each, s."""

BLOCK_LENGTH = 32.0
"""Length of a jackknife block, s."""

SHORT_BLOCK_LENGTH = 4.0
"""Length of a jackknife block in the 32 s around an event, s."""

GAUSSIAN = "Gaussian, O3 and O4 curves"
O1 = "recorded, O1 around GW150914"


@functools.cache
def white_power(count: int, geometry: Geometry) -> np.ndarray:
    """Median whitened power of white noise in each band, [bands].

    It is not 1, since the filter is designed from the same periodograms.

    Args:
        count: Number of periodograms.
        geometry: Lengths of periodograms and filter.
    """
    rng = np.random.default_rng([SEED, count])
    size = (count + 1) * geometry.fft_size // 2
    powers = []
    for _ in range(64):
        noise = rng.standard_normal(size)
        seen = whitening.periodograms(noise, geometry.fft_size, geometry.sample_rate)
        powers.append(filtered_power(seen, geometry))
    mean: np.ndarray = np.mean(powers, axis=0)
    return mean


def filtered_power(seen: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Median over periodograms of the whitened power in each band, [bands].

    Args:
        seen: Periodograms, [segments, bins].
        geometry: Geometry of the analysis.
    """
    taps = whitening.design_filter(seen, geometry)
    response = whitening.zero_phase_response(taps, geometry.fft_size)
    weights = passed_weights(geometry.fft_size, geometry)
    powers = seen * response**2 @ weights.T * geometry.sample_rate / 2
    median: np.ndarray = np.median(powers / weights.sum(1), axis=0)
    return median


def passed_weights(size: int, geometry: Geometry) -> np.ndarray:
    """Weights of the bands above the highpass, [bands, size // 2 + 1]."""
    frequencies = np.fft.rfftfreq(size, 1 / geometry.sample_rate)
    weights = np.stack(band_windows(frequencies, MAX_FREQUENCY))
    passed: np.ndarray = weights * (frequencies >= geometry.highpass)
    return passed


def gained_filter(seen: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Design a whitening filter with a gain for each band; see ``whitening.Design``.

    A band's gain is the inverse square root of its median whitened power, relative to
    white noise, in the periodograms from which the PSD is computed.
    """
    gains = np.sqrt(white_power(len(seen), geometry) / filtered_power(seen, geometry))
    frequencies = np.fft.rfftfreq(geometry.fft_size, 1 / geometry.sample_rate)
    weights = np.stack(band_windows(frequencies, MAX_FREQUENCY))
    gain = gains @ weights + 1 - weights.sum(0)
    return whitening.design_filter(seen / gain**2, geometry)


@dataclass(frozen=True)
class Choice:
    """A choice of whitening.

    Attributes:
        fftlength, fduration: Lengths of periodogram and filter, see ``Geometry``, s.
        design: Designs a filter from periodograms.
    """

    fftlength: float
    fduration: float
    design: whitening.Design = whitening.design_filter

    def geometry(self, geometry: Geometry) -> Geometry:
        """Return a network's geometry with this whitening."""
        return replace(geometry, fftlength=self.fftlength, fduration=self.fduration)


REFERENCE = "PSD 2 s, filter 1 s"
"""Choice with which the others are compared."""

CHOICES = {
    REFERENCE: Choice(2.0, 1.0),
    "the same, band gains": Choice(2.0, 1.0, gained_filter),
    "PSD 4 s, filter 2 s": Choice(4.0, 2.0),
    "PSD 2 s, filter 2 s": Choice(2.0, 2.0),
    "PSD 1 s, filter 1 s": Choice(1.0, 1.0),
}


@dataclass(frozen=True)
class Noise:
    """A kind of noise in two detectors.

    Attributes:
        stretches: Strain, each [ifos, size].
        mergers: Number of mergers to inject for each pair of masses.
        event: Sample of an event in each stretch, if any.
    """

    stretches: list[np.ndarray]
    mergers: int = 0
    event: float | None = None


def simulated(
    seconds: int, run: str, geometry: Geometry, *, lines: bool = False
) -> np.ndarray:
    """Stationary Gaussian noise with a run's default curves, [ifos, size]."""
    settings = BackgroundSettings(run=run, lines=lines)
    streams = (
        BackgroundStream(seconds, ifo, geometry.sample_rate, settings, [SEED])
        for ifo in geometry.ifos
    )
    return np.stack([np.concatenate(list(stream.pieces())) for stream in streams])


NOISES = (
    GAUSSIAN,
    "Gaussian, measured spectra",
    "simulated lines on O3's curves",
    "recorded, O3a against itself",
    "recorded, O3a against O3's curves",
    O1,
)


def read_noises(data: Path, geometry: Geometry, mergers: int) -> dict[str, Noise]:
    """Read or simulate all kinds of noise, by name.

    Args:
        data: Folder of the recorded data, see the module.
        geometry: Geometry of the analysis.
        mergers: Number of mergers to inject for each pair of masses.
    """
    rate, rng = geometry.sample_rate, np.random.default_rng(SEED)
    _, _, series = read_series(data / "o3a_noise_500s.hdf")
    curves = {run: simulated(512, run, geometry) for run in ("O3", "O4")}
    folders = [
        SpectrumStretches.of_folder(data / "psds", ifo, rate) for ifo in geometry.ifos
    ]
    spectra = [
        np.stack(
            [
                coloured_noise(folder.asds[number], SPECTRUM_LENGTH * rate, rate, rng)
                for folder in folders
            ]
        )
        for number in SPECTRA
    ]
    segment = event_segment(data, geometry)
    around = np.stack(
        [segment.read(ifo, 0, segment.size).astype(float) for ifo in geometry.ifos]
    )
    event = (EVENT_TIME - segment.t0_ns / NANOSECONDS) * rate
    lines = simulated(512, "O3", geometry, lines=True)
    beside = curves["O3"][1, : len(series)]
    kinds = (
        Noise(list(curves.values()), mergers),
        Noise(spectra),
        Noise([lines], mergers),
        Noise([np.stack([series, series])], mergers),
        Noise([np.stack([series[: len(beside)], beside])]),
        Noise([around], mergers, event),
    )
    return dict(zip(NOISES, kinds, strict=True))


def event_segment(data: Path, geometry: Geometry) -> Segment:
    """Read the strain around GW150914."""
    paths = sorted(data.glob("*LOSC_4_V2*.hdf5"))
    (segment,) = read_gwosc(paths, geometry.ifos, geometry.sample_rate)
    return segment


def near(begins: np.ndarray, event: float | None, geometry: Geometry) -> np.ndarray:
    """Whether kernels contain the event, whitening filter included.

    Args:
        begins: First sample of each kernel.
        event: Sample of the event, if any.
        geometry: Geometry of the analysis.
    """
    if event is None:
        return np.zeros(len(begins), bool)
    margin = MARGIN_LENGTH * geometry.sample_rate
    low, high = event - geometry.kernel_size - margin, event + margin
    seen: np.ndarray = (begins > low) & (begins < high)
    return seen


def band_variances(white: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Variance of whitened noise in each band and second, [bands, seconds].

    Args:
        white: Whitened strain, [size].
        geometry: Geometry of the analysis.
    """
    rate, size = geometry.sample_rate, len(white)
    spectrum, result = np.fft.rfft(white), []
    for weights in passed_weights(size, geometry):
        series = np.fft.irfft(spectrum * np.sqrt(weights), size)
        share = weights.sum() / len(weights)
        seconds = series[: size // rate * rate].reshape(-1, rate)
        result.append((seconds**2).mean(1) / share)
    return np.stack(result)


class NoiseScores:
    """Scores of noise windows, with the blocks of strain for a jackknife.

    Args:
        values: Scores, [n].
        blocks: Number of the block of strain in each detector, [ifos, n]; the same for
            all detectors at the same time.

    Attributes:
        thresholds: Threshold at each of ``RATES``, NaN if fewer than ``MIN_EVENTS``
            windows are above it, [rates]; and with each block left out, [blocks,
            rates].
    """

    def __init__(self, values: np.ndarray, blocks: np.ndarray) -> None:
        order = np.argsort(-values)
        self.values, self.blocks = values[order], blocks[:, order].astype(np.int16)
        self.thresholds = self._with_errors(
            lambda values: [_threshold(values, rate) for rate in RATES]
        )

    def shares(self, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shares of the windows above limits, and the same with each block left out.

        Args:
            limits: Scores, [limits].

        Returns:
            Shares, [limits], and with each block left out, [blocks, limits].
        """
        return self._with_errors(lambda values: _shares(values, limits))

    def _with_errors(
        self, measure: Callable[[np.ndarray], Sequence[float]]
    ) -> tuple[np.ndarray, np.ndarray]:
        left_out = [
            measure(self.values[(self.blocks != block).all(0)])
            for block in np.unique(self.blocks)
        ]
        return np.array(measure(self.values)), np.array(left_out)


def _threshold(descending: np.ndarray, rate: float) -> float:
    place = round(rate * len(descending))
    return float(descending[place]) if place >= MIN_EVENTS else np.nan


def _shares(descending: np.ndarray, limits: np.ndarray) -> list[float]:
    return [float(np.searchsorted(-descending, -x) / len(descending)) for x in limits]


def jackknife(values: np.ndarray) -> float:
    """Standard error from estimates that each leave one block out (Efron 1982)."""
    count = len(values)
    return float(np.sqrt((count - 1) * values.var()))


class Judge:
    """Scores noise and mergers with one choice of whitening.

    Args:
        network: Network in evaluation mode.
        choice: Choice of whitening.
    """

    def __init__(self, network: Sliding, choice: Choice) -> None:
        self.network, self.design = network.fused(), choice.design
        self.geometry = choice.geometry(network.geometry)
        self.network.geometry = self.geometry
        self.start = whitened_start(self.geometry)

    def filters(self, strain: np.ndarray) -> list[list[np.ndarray]]:
        """Design each detector's whitening filters for a stretch."""
        return [stretch_filters(row, self.geometry, self.design) for row in strain]

    def whiten(
        self, strain: np.ndarray, filters: list[list[np.ndarray]]
    ) -> torch.Tensor:
        """Whiten a stretch, [ifos, time]."""
        rows = [
            apply_filters(row, taps, self.geometry)
            for row, taps in zip(strain, filters, strict=True)
        ]
        return torch.from_numpy(np.stack(rows))

    def variances(self, white: torch.Tensor, event: float | None) -> np.ndarray:
        """Variance of each second away from the event, [ifos, bands, seconds]."""
        rate = self.geometry.sample_rate
        values = np.stack([band_variances(x, self.geometry) for x in white.numpy()])
        if event is None:
            return values
        middles = self.start + rate * (np.arange(values.shape[-1]) + 0.5)
        return values[..., np.abs(middles - event) > 1.5 * rate]

    @torch.inference_mode()
    def slide_scores(
        self, white: torch.Tensor, number: int, event: float | None
    ) -> NoiseScores:
        """Score timeslides of a stretch.

        Args:
            white: Whitened strain, [ifos, time].
            number: Number of the stretch.
            event: Sample of an event; kernels that contain it are left out.
        """
        geometry, frame_size = self.geometry, self.geometry.frame_size
        frames, kernel = frames_of(self.network, white), kernel_frames(self.network)
        total = frames.shape[-1]
        # Kernels and filters of the detectors share no strain.
        least = (geometry.kernel_length + 2 * MARGIN_LENGTH) * geometry.sample_rate
        least = np.ceil(least / geometry.stride_size) * geometry.stride_size
        least_frames = int(least) // frame_size
        step = geometry.stride_size // frame_size
        slides = SLIDES if event is None else SHORT_SLIDES
        shifts = np.linspace(least_frames, total - least_frames, slides)
        shifts = np.unique(shifts // step * step).astype(int)
        values, blocks = [], []
        for shift in shifts:
            for begins, scores in score_slide(self.network, frames, shift, kernel):
                places = np.array(begins)[:, None] * frame_size + self.start
                places = places + np.arange(len(scores)) * geometry.stride_size
                seen = np.any([near(x, event, geometry) for x in places], 0)
                values.append(scores.numpy()[~seen])
                length = BLOCK_LENGTH if event is None else SHORT_BLOCK_LENGTH
                block = places[:, ~seen] // round(length * geometry.sample_rate)
                blocks.append(block + 100 * number)
        return NoiseScores(np.concatenate(values), np.concatenate(blocks, 1))

    @torch.inference_mode()
    def merger_scores(
        self,
        strain: np.ndarray,
        white: torch.Tensor,
        filters: list[list[np.ndarray]],
        count: int,
        event: float | None,
    ) -> np.ndarray:
        """Score mergers in noise; all choices get the same, [masses, count].

        Detectors' noise is from different times. The merger is 0.65 to 0.08 s before
        the end of its window, as in training.

        Args:
            strain: Strain, [ifos, size].
            white: Whitened strain, [ifos, time].
            filters: Whitening filters of each detector.
            count: Number of mergers for each pair of masses.
            event: Sample of an event to avoid, if any.
        """
        geometry, rate = self.geometry, self.geometry.sample_rate
        rng = np.random.default_rng([SEED, count])
        torch.manual_seed(SEED)
        asds = np.stack([asd_of(row, geometry) for row in strain])
        total, windows = len(MASSES) * count, []
        masses = np.array(MASSES)[np.arange(total) % len(MASSES)]
        done = 0
        while done < total:
            starts = window_starts(strain.shape[1], event, geometry, rng)
            n = min(starts.shape[1], total - done)
            if not n:
                continue
            signals, _ = project_mergers(
                masses[done : done + n],
                np.zeros((n, 2)),
                np.full(n, SNR),
                asds,
                geometry,
            )
            before = geometry.kernel_size - rng.uniform(0.08, 0.65, n) * rate
            places = starts[:, :n] + np.rint(before - MERGER_LENGTH * rate).astype(int)
            added = np.zeros_like(strain)
            for i, row in enumerate(places):
                for place, signal in zip(row, signals[:, i], strict=True):
                    added[i, place : place + signal.shape[-1]] += signal
            loud = white + self.whiten(added, filters)
            cuts = starts[:, :n] - self.start
            windows += [
                torch.stack(
                    [
                        x[cut : cut + geometry.kernel_size]
                        for x, cut in zip(loud, pair, strict=True)
                    ]
                )
                for pair in cuts.T
            ]
            done += n
        scores = score_windows(self.network, torch.stack(windows)).numpy()
        return scores.reshape(count, len(MASSES)).T


def asd_of(strain: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Amplitude spectral density for the SNR, from 2 s periodograms, [bins]."""
    rate = geometry.sample_rate
    return np.sqrt(whitening.median_psd(whitening.periodograms(strain, 2 * rate, rate)))


def window_starts(
    size: int, event: float | None, geometry: Geometry, rng: np.random.Generator
) -> np.ndarray:
    """First samples of each detector's windows with a merger, [ifos, n].

    In each detector they are ``MERGER_SPACING`` apart. A merger's windows in different
    detectors share no strain, and no window contains the event.
    """
    rate = geometry.sample_rate
    first = geometry.psd_min_size - geometry.kernel_size
    last = size - geometry.kernel_size - round(MARGIN_LENGTH * rate)
    slot = round(MERGER_SPACING * rate)
    rows = []
    for _ in geometry.ifos:
        starts = np.arange(first + rng.integers(slot), last, slot)
        rows.append(rng.permutation(starts[~near(starts, event, geometry)]))
    n = min(map(len, rows))
    starts = np.stack([row[:n] for row in rows])
    apart = geometry.kernel_size + 2 * MARGIN_LENGTH * rate
    gaps = np.diff(np.sort(starts, axis=0), axis=0).min(0)
    return starts[:, gaps >= apart]


def judge(
    network: Sliding, choice: Choice, noises: Mapping[str, Noise], data: Path
) -> dict[str, Any]:
    """Score all noise, mergers and GW150914 with one choice of whitening.

    Args:
        network: Network in evaluation mode.
        choice: Choice of whitening.
        noises: Kinds of noise, by name.
        data: Folder of the recorded data.
    """
    scorer = Judge(network, choice)
    result: dict[str, Any] = {"geometry": scorer.geometry}
    for name, noise in noises.items():
        variances, scores, mergers = [], [], []
        for number, strain in enumerate(noise.stretches):
            filters = scorer.filters(strain)
            white = scorer.whiten(strain, filters)
            variances.append(scorer.variances(white, noise.event))
            scores.append(scorer.slide_scores(white, number, noise.event))
            if noise.mergers:
                count = noise.mergers // len(noise.stretches)
                mergers.append(
                    scorer.merger_scores(strain, white, filters, count, noise.event)
                )
        result[name] = {
            "variances": np.concatenate(variances, -1),
            "scores": NoiseScores(
                np.concatenate([x.values for x in scores]),
                np.concatenate([x.blocks for x in scores], 1),
            ),
            "mergers": np.concatenate(mergers, 1) if mergers else None,
        }
    gaussian = result[GAUSSIAN]["scores"].values
    livetime = len(gaussian) * scorer.geometry.stride_length
    result["event"] = rank_event(
        scorer.network,
        event_segment(data, scorer.geometry),
        EVENT_TIME,
        Background.of([gaussian.max()], livetime),
        scorer.design,
    )
    return result


def rate_figures(
    scores: NoiseScores,
    gaussian: NoiseScores,
    references: Sequence[Mapping[str, Any]] | None,
) -> list[dict[str, Any]]:
    """False-positive rates at thresholds from Gaussian noise, with their errors.

    Args:
        scores: Scores of the noise.
        gaussian: Scores of Gaussian noise, which set the thresholds.
        references: This function's result for the reference choice, on the same noise.

    Returns:
        Figures for each of ``RATES``.
    """
    limits, moved_limits = gaussian.thresholds
    shares, left_out = scores.shares(limits)
    moved = np.array([_shares(scores.values, x) for x in moved_limits])
    result = []
    for i in range(len(RATES)):
        parts = left_out[:, i], moved[:, i]
        entry = {
            "rate": float(shares[i]),
            "error": float(np.hypot(jackknife(parts[0]), jackknife(parts[1]))),
            "threshold": float(limits[i]),
            "threshold_error": jackknife(moved_limits[:, i]),
            "_parts": parts,
        }
        if references is not None:
            before = references[i]
            # A linear error, since a logarithmic one fails at a rate of zero.
            ratio = shares[i] / before["rate"] if before["rate"] else np.nan
            errors = [
                jackknife(a - ratio * b) / before["rate"]
                for a, b in zip(parts, before["_parts"], strict=True)
            ]
            entry |= {"ratio": ratio, "ratio_error": float(np.hypot(*errors))}
        result.append(entry)
    return result


def found_figures(
    mergers: np.ndarray,
    scores: NoiseScores,
    references: Sequence[Mapping[str, Any] | None] | None,
) -> list[dict[str, Any] | None]:
    """Efficiency at false-positive rates of the same noise.

    Args:
        mergers: Scores of the mergers, [masses, n].
        scores: Scores of the noise.
        references: This function's result for the reference choice, on the same
            mergers.

    Returns:
        For each of ``RATES``, efficiencies with the errors from mergers and threshold;
        None if there is too little noise.
    """
    limits, moved_limits = scores.thresholds
    result: list[dict[str, Any] | None] = []
    for i, limit in enumerate(limits):
        if np.isnan(limit):
            result.append(None)
            continue
        found = mergers > limit
        moved_found = mergers > moved_limits[:, i, None, None]
        moved = moved_found.mean((1, 2))
        by_masses = found.mean(1)
        counted = np.sqrt(by_masses * (1 - by_masses) / found.shape[1])
        noise = [jackknife(x) for x in moved_found.mean(2).T]
        entry: dict[str, Any] = {
            "threshold": float(limit),
            "threshold_error": jackknife(moved_limits[:, i]),
            "by_masses": by_masses,
            "by_masses_error": np.hypot(counted, noise),
            "found": float(found.mean()),
            "error": float(
                np.hypot(found.std() / np.sqrt(found.size), jackknife(moved))
            ),
            "_found": found,
            "_moved": moved,
        }
        if references is not None and (before := references[i]) is not None:
            change = found.astype(float) - before["_found"]
            error = jackknife(moved - before["_moved"])
            entry["change"] = float(change.mean())
            entry["change_error"] = float(
                np.hypot(change.std() / np.sqrt(change.size), error)
            )
        result.append(entry)
    return result


def summarize(
    results: Mapping[str, dict[str, Any]], noises: Mapping[str, Noise]
) -> dict[str, Any]:
    """Compute all choices' figures; the first choice is the others' reference."""
    summary: dict[str, Any] = {}
    first: dict[str, Any] | None = None
    for choice, result in results.items():
        geometry, event = result["geometry"], result["event"]
        entry: dict[str, Any] = {
            "fftlength": geometry.fftlength,
            "fduration": geometry.fduration,
            "latency": geometry.fduration / 2,
            "GW150914": event["statistic"],
            "GW150914_elsewhere": event["zero_lag"]["loudest"],
            "GW150914_file_without_event": event["file_without_event"],
            "noise": {},
        }
        gaussian = result[GAUSSIAN]["scores"]
        for name, noise in noises.items():
            part = result[name]
            before = first["noise"][name] if first else None
            values = part["variances"]
            figures: dict[str, Any] = {
                "windows": len(part["scores"].values),
                "variance": values.mean(-1),
                "spread": values.std(-1),
                "median": np.median(values, axis=-1),
                "false_positives": rate_figures(
                    part["scores"], gaussian, before and before["false_positives"]
                ),
            }
            if noise.mergers:
                figures["found"] = found_figures(
                    part["mergers"], part["scores"], before and before["found"]
                )
            entry["noise"][name] = figures
        summary[choice] = entry
        first = first or entry
    return summary


def plain(value: Any) -> Any:
    """JSON-ready copy without keys that start with an underscore."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items() if not k.startswith("_")}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value


def _percent(entry: Mapping[str, Any] | None, name: str) -> str:
    if entry is None:
        return "n/a"
    error = "change_error" if name == "change" else "error"
    sign = "+" if name == "change" else ""
    return f"{100 * entry[name]:{sign}.1f} ± {100 * entry[error]:.1f}"


def _variances(figures: Mapping[str, Any], band: int) -> str:
    """Mean and spread of a band's variance in each detector."""
    both = zip(figures["variance"], figures["spread"], strict=True)
    return "; ".join(f"{mean[band]:.2f} ± {spread[band]:.2f}" for mean, spread in both)


def _rate(entry: Mapping[str, Any]) -> str:
    """A false-positive rate, and its ratio to the reference choice's."""
    if not entry["rate"]:
        return "none"
    cell = f"{entry['rate']:.2g} ± {entry['error']:.1g}"
    if "ratio" in entry:
        cell += f", {entry['ratio']:.2f} ± {entry['ratio_error']:.2f}"
    return cell


def render(summary: Mapping[str, Any]) -> str:
    """Format the figures as Markdown."""
    any_choice = next(iter(summary.values()))
    lines = ["# Whitening choices in recorded strain", ""]
    lines += ["| Choice | half a filter, s | GW150914 | loudest elsewhere, zero-lag |"]
    lines += ["|---|---|---|---|"]
    for choice, entry in summary.items():
        lines.append(
            f"| {choice} | {entry['latency']:g} | {entry['GW150914']:.1f} | "
            f"{entry['GW150914_elsewhere']:.1f} |"
        )
    for name, noise in any_choice["noise"].items():
        lines += ["", f"## {name}", "", f"{noise['windows']} windows of noise.", ""]
        rates = [f"{rate:g}" for rate in RATES]
        head = ["Choice", *(f"variance {band}" for band in BANDS)]
        head += [f"false positives at Gaussian {rate}, ratio" for rate in rates]
        if "found" in noise:
            head += [f"found at {rate}, %; change" for rate in rates]
        rows = []
        for choice, entry in summary.items():
            figures = entry["noise"][name]
            cells = [choice]
            cells += [_variances(figures, band) for band in range(len(BANDS))]
            cells += [_rate(part) for part in figures["false_positives"]]
            for part in figures.get("found", ()):
                cell = _percent(part, "found")
                if part and "change" in part:
                    cell += f"; {_percent(part, 'change')}"
                cells.append(cell)
            rows.append(cells)
        lines.append(lay_out(head, rows).rstrip())
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("data", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help=f"Checkpoint.  [default: the shipped network {MODEL}]",
)
@click.option(
    "--mergers",
    default=100,
    show_default=True,
    help="Number of mergers with each pair of masses.",
)
@click.option(
    "--choice",
    "names",
    multiple=True,
    type=click.Choice(list(CHOICES)),
    help="Choice of whitening; repeat for several.  [default: all]",
)
@click.option(
    "--noise",
    "kinds",
    multiple=True,
    type=click.Choice(NOISES),
    help="Kind of noise; repeat for several.  [default: all]",
)
def main(
    folder: Path,
    data: Path,
    checkpoint: Path | None,
    mergers: int,
    names: tuple[str, ...],
    kinds: tuple[str, ...],
) -> None:
    """Compare choices of whitening in recorded strain; write FOLDER/bands.md."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    network, _ = load_sliding(checkpoint or find_checkpoint(MODEL))
    noises = read_noises(data, network.geometry, mergers)
    if kinds:
        # Gaussian noise sets the thresholds.
        noises = {x: noises[x] for x in NOISES if x == GAUSSIAN or x in kinds}
    chosen = {x: CHOICES[x] for x in (REFERENCE, *(names or CHOICES))}
    results = {
        name: judge(network, choice, noises, data) for name, choice in chosen.items()
    }
    summary = summarize(results, noises)
    (folder / "bands.json").write_text(json.dumps(plain(summary), indent=2) + "\n")
    (folder / "bands.md").write_text(render(summary))
    print((folder / "bands.md").read_text())


if __name__ == "__main__":
    main()

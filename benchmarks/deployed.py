"""Efficiency of networks in a search: ``python -m benchmarks.deployed FOLDER``.

Judges several networks on the same strain and injections, drawn by
``train.evaluation.deployment`` from the population of ``matched``'s training. Writes
``FOLDER/deployed.json`` and ``.md``, in about eight minutes of one core:

- efficiency at one false alarm per hour and per day, and the number of independent
  causes above these thresholds;
- every loud merger that is missed at one false alarm per day;
- scores of mergers in a single detector and of glitches, by SNR; timeslides of data
  with real mergers contain such mergers;
- efficiency for windows with a merger of SNR 8, at false-positive rates down to 1e-6.
"""

import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
import yaml
from torch import Tensor

from benchmarks.deployed_report import report
from chirpwatch.atomic import replacing
from chirpwatch.efficiency import wilson_interval
from chirpwatch.geometry import Geometry
from chirpwatch.train.data.noise.sources import SimulatedStretches
from chirpwatch.train.data.window_settings import WindowSettings
from chirpwatch.train.evaluation.deployment import (
    GLITCH_LENGTH,
    INJECTION_SPACING,
    MIN_CAUSES,
    MIN_EVENTS,
    SPACINGS,
    DeployedValidation,
    Glitch,
    Injections,
    Piece,
    Slides,
    check_kernels,
)
from chirpwatch.train.evaluation.effort import Effort
from chirpwatch.train.evaluation.heldout import OtherNoise
from chirpwatch.train.evaluation.scoring import (
    kernel_frames,
    score_slide,
)
from chirpwatch.train.evaluation.thresholds import MASSES, RATES
from chirpwatch.train.evaluation.validation import Validation, weights_hash
from chirpwatch.train.fitting.fit import find_config
from chirpwatch.train.networks.checkpoint import (
    find_checkpoint,
    load_sliding,
)
from chirpwatch.units import JULIAN_YEAR

NETWORKS = ("matched", "split")
POPULATION = "matched"
"""Configuration whose mergers are injected."""

SEED = 1003
"""Random seed; differs from those of all trainings and other validations."""

WINDOW_SNR = 8.0
"""Network SNR of the windows with mergers."""

WINDOW_STRETCHES = 20
"""Number of noise stretches from which these windows are cut."""

LOUD_SNR = 15.0
"""Network SNR from which a missed merger is listed."""

LONE_SLIDES = 8
"""Number of timeslides of the stretches with injections."""

LONE_DISTANCE = 3.0
"""Smallest time between mergers of two detectors in these slides, s."""

LONE_EDGES = (8.0, 12.0, 20.0, 40.0, 70.0, 100.0)
"""Edges of the SNR bins of mergers in a single detector."""

GLITCH_EDGES = (4.0, *LONE_EDGES)
"""Edges of the SNR bins of glitches."""

FLOOR_RATE = 1e-2
"""Share of the windows whose scores are kept, as judged by the first slide."""

QUANTILES = (0.05, 0.5, 0.95)
"""Quantiles of the scores in an SNR bin."""


class Sizes(NamedTuple):
    """Size of the validation.

    Attributes:
        length: Length of each detector's background strain, s.
        stretches: Number of stretches of that strain.
        slides: Timeslides of each stretch.
        injections: Injections from the population.
        loud: Additional injections above ``LOUD_SNR``.
        windows: Windows for each pair of masses.
    """

    length: float = 16_384.0
    stretches: int = 16
    slides: int = 144
    injections: int = 1000
    loud: int = 500
    windows: int = 600


class Source(NamedTuple):
    """A glitch or a merger in a single detector, and its scores in timeslides.

    Attributes:
        snr: SNR in the detector.
        scores: Largest score of the kernels that contain it, in each slide, [pairings].
    """

    snr: float
    scores: np.ndarray


def population() -> WindowSettings:
    """Read masses, spins, SNRs, noise curves and glitches of ``matched``'s training."""
    config = yaml.safe_load(find_config(POPULATION).read_text())
    return WindowSettings(**config["data"]["windows"])


def kernels_with(
    center: int, begin: int, strides: int, geometry: Geometry, margin_size: int = 0
) -> slice:
    """Kernels of a slide's piece that contain a sample, or are near it.

    Args:
        center: The sample, counted in the stretch.
        begin: First sample of the first kernel.
        strides: Number of kernels in the piece.
        geometry: Length and stride of the kernels.
        margin_size: Largest distance from a kernel to ``center``, samples.
    """
    after = center - begin
    first = (after - margin_size - geometry.kernel_size) // geometry.stride_size + 1
    stop = (after + margin_size) // geometry.stride_size + 1
    return slice(min(max(first, 0), strides), min(max(stop, 0), strides))


class Recorder:
    """Collects the loudest windows of all slides, and the loudest at each glitch.

    Args:
        geometry: Geometry of the network.
        glitches: Glitches of each stretch.

    Attributes:
        windows: Number of ``all`` windows, and of ``quiet`` ones without a glitch.
    """

    def __init__(self, geometry: Geometry, glitches: Sequence[Sequence[Glitch]]):
        self.geometry, self.glitches = geometry, glitches
        self.windows = {"all": 0, "quiet": 0}
        self._floor: float | None = None
        self._loudest: dict[tuple[int, int], list[float]] = {}
        self._scores: list[np.ndarray] = []
        self._places: list[np.ndarray] = []
        self._quiet: list[np.ndarray] = []
        # The whitening filter spreads a glitch by half its length.
        length = GLITCH_LENGTH / 2 + geometry.fduration / 2
        self._margin_size = round(length * geometry.sample_rate)

    def add(self, piece: Piece) -> None:
        """Add the scores of one piece of a slide."""
        scores, strides = piece.scores, len(piece.scores)
        quiet = np.ones(strides, bool)
        for index, glitch in enumerate(self.glitches[piece.stretch]):
            place = glitch.center, int(piece.begins[glitch.ifo]), strides, self.geometry
            quiet[kernels_with(*place, self._margin_size)] = False
            near = scores[kernels_with(*place)]
            if len(near):
                key = piece.stretch, index
                self._loudest.setdefault(key, []).append(float(near.max()))
        self.windows["all"] += strides
        self.windows["quiet"] += int(quiet.sum())
        if self._floor is None:
            self._floor = float(np.quantile(scores, 1 - FLOOR_RATE))
        kept = np.flatnonzero(scores > self._floor)
        begins = kept * self.geometry.stride_size + piece.begins[:, None]
        self._scores.append(scores[kept])
        self._quiet.append(quiet[kept])
        # 1e6 s between stretches, longer than any of them.
        self._places.append(begins / self.geometry.sample_rate + piece.stretch * 1e6)

    def false_positives(self, kind: str) -> "WindowRates":
        """False-positive rates of a kind of windows, ``all`` or ``quiet``."""
        chosen = np.concatenate(self._quiet) | (kind == "all")
        geometry = self.geometry
        slides = Slides(
            np.concatenate(self._scores)[chosen],
            np.concatenate(self._places, axis=1)[:, chosen],
            self.windows[kind] * geometry.stride_length,
            geometry.kernel_length,
        )
        return WindowRates(slides, self.windows[kind])

    def sources(self) -> list[Source]:
        """Return the glitches with their scores."""
        return [
            Source(self.glitches[stretch][index].snr, np.array(scores))
            for (stretch, index), scores in self._loudest.items()
        ]


class WindowRates:
    """False-positive rates of overlapping windows in slides that share strain.

    ``FalsePositives`` treats slides as independent; this class counts clusters by
    ``Slides.effective_count``.

    Args:
        loud: The loudest windows, as events.
        total: Number of all windows.
    """

    def __init__(self, loud: Slides, total: int) -> None:
        self._loud, self._total = loud, total
        self._sorted = -np.sort(-loud.statistics)

    def threshold(self, rate: float) -> float | None:
        """Threshold at a false-positive rate per window; None if below the kept scores.

        Args:
            rate: Largest share of the windows above the threshold.
        """
        place = int(rate * self._total + 1e-9)
        return float(self._sorted[place]) if place < len(self._sorted) else None

    def clusters(self, threshold: float) -> float:
        """Effective number of independent clusters above a threshold."""
        return self._loud.effective_count(math.nextafter(threshold, math.inf))

    def limits(self, rate: float) -> dict[str, float] | None:
        """Threshold at a false-positive rate, with its uncertainty.

        Returns:
            ``threshold``; ``clusters`` and ``windows``, their numbers above it; and
            ``low`` and ``high``, the thresholds if √n fewer or more of the n clusters
            were above. None if there are fewer than ``MIN_EVENTS`` clusters.
        """
        threshold = self.threshold(rate)
        if threshold is None:
            return None
        clusters = self.clusters(threshold)
        if clusters < MIN_EVENTS:
            return None
        error = 1 / math.sqrt(clusters)
        low, high = (self.threshold(rate * (1 + sign * error)) for sign in (-1, 1))
        assert low is not None
        return {
            "threshold": threshold,
            "clusters": clusters,
            "windows": int((self._loud.statistics > threshold).sum()),
            "low": low,
            "high": threshold if high is None else high,
        }


class LoneMergers:
    """Scores mergers in one detector with noise in the others, in timeslides.

    Stretches with injections are shifted by odd multiples of half the injections'
    spacing, so that a merger in one detector coincides with noise in the other.

    Args:
        network: Network that can score slides.
    """

    def __init__(self, network: Any) -> None:
        self.network, self.kernel = network, kernel_frames(network)
        self.sources: list[Source] = []

    def add(self, stretch: Injections, frames: Tensor) -> None:
        """Score the slides of a stretch.

        Args:
            stretch: Injections.
            frames: Feature frames of the stretch with the injections.
        """
        geometry: Geometry = self.network.geometry
        rate = geometry.sample_rate // geometry.frame_size
        scores: dict[tuple[int, int], list[float]] = {}
        for slide in range(LONE_SLIDES):
            shift = round((slide + 0.5) * INJECTION_SPACING * rate) % frames.shape[-1]
            for begins, series in score_slide(self.network, frames, shift, self.kernel):
                places = geometry.frame_size * np.array(begins)
                for key, loudest in self._loudest(stretch, places, series.cpu()):
                    scores.setdefault(key, []).append(loudest)
        self.sources += [
            Source(float(stretch.ifo_snrs[key]), np.array(loudest))
            for key, loudest in scores.items()
        ]

    def _loudest(
        self, stretch: Injections, begins: np.ndarray, series: Tensor
    ) -> Iterator[tuple[tuple[int, int], float]]:
        """Largest score of each merger in a piece of a slide.

        Since a slide is circular, mergers of two detectors may coincide in its second
        piece; these are left out.

        Yields:
            Indices of merger and detector, and the score.
        """
        geometry, strides = self.network.geometry, len(series)
        apart = LONE_DISTANCE * geometry.sample_rate
        for ifo, begin in enumerate(begins):
            for index, merger in enumerate(stretch.mergers):
                others = np.delete(begins, ifo) - begin + merger
                near = np.abs(stretch.mergers[:, None] - others) < apart
                place = kernels_with(int(merger), int(begin), strides, geometry)
                if place.stop > place.start and not near.any():
                    yield (index, ifo), float(series[place].max())


def by_snr(
    sources: Sequence[Source], edges: Sequence[float], thresholds: dict[str, float]
) -> list[dict[str, Any]]:
    """Summarise the scores of sources in bins of SNR.

    Args:
        sources: Glitches, or mergers in a single detector.
        edges: Edges of the bins; the upper one is exclusive.
        thresholds: Thresholds by name.

    Returns:
        For each bin: ``low`` and ``high``, its edges; ``sources`` and ``pairings``,
        their numbers; ``quantiles`` of the score at ``QUANTILES``; and ``above``, the
        share of the pairings above each threshold, with its standard error from the
        scatter between sources.
    """
    bins = []
    for low, high in itertools.pairwise(edges):
        inside = [source.scores for source in sources if low <= source.snr < high]
        entry: dict[str, Any] = {"low": low, "high": high, "sources": len(inside)}
        entry["pairings"] = sum(map(len, inside))
        if inside:
            scores = np.concatenate(inside)
            entry["quantiles"] = [float(x) for x in np.quantile(scores, QUANTILES)]
            entry["above"] = {
                name: _mean_share([each >= limit for each in inside])
                for name, limit in thresholds.items()
            }
        bins.append(entry)
    return bins


def _mean_share(hits: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean of the sources' shares, and its standard error.

    If all sources agree, the error is the change by one additional source that differs.
    """
    shares = np.array([hit.mean() for hit in hits])
    n = len(shares)
    spread = float(shares.std(ddof=1)) if n > 1 else 1.0
    return {
        "share": float(shares.mean()),
        "error": max(spread / math.sqrt(n), 1 / (n + 1) if not spread else 0.0),
    }


def efficiency_at(
    loudest: np.ndarray, slides: Slides, spacing: float, count: int
) -> dict[str, Any]:
    """Efficiency at a false-alarm rate.

    Args:
        loudest: Statistic of each injection's event, -inf without an event, [n].
        slides: Events of the background.
        spacing: Mean time between false alarms, s.
        count: Number of injections from the population, the first ones.

    Returns:
        Numbers of ``events`` and ``causes`` above the threshold, and ``clusters``,
        their effective number. Unless there are too few, as in
        ``DeployedValidation.evaluate``: ``threshold``; ``low`` and ``high``, the
        thresholds if √n fewer or more of the n clusters were above; ``share``,
        ``share_low`` and ``share_high``, the efficiencies at these; and ``wilson``, the
        binomial interval of ``share`` (68 %).
    """
    background, rate = slides.background, JULIAN_YEAR / spacing
    if slides.livetime < MIN_EVENTS * spacing:
        return {"events": 0, "causes": 0, "clusters": 0.0}
    threshold = background.threshold_at_far(rate)
    clusters = slides.effective_count(threshold)
    result: dict[str, Any] = {
        "events": background.count(threshold),
        "causes": slides.causes(threshold),
        "clusters": clusters,
    }
    if result["causes"] < MIN_CAUSES:
        return result
    least = background.lowest_far_per_year
    assert least is not None
    error = 1 / math.sqrt(clusters)
    low, high = (
        background.threshold_at_far(max(rate * (1 + sign * error), least))
        for sign in (-1, 1)
    )
    share = loudest[:count] >= threshold
    return result | {
        "threshold": threshold,
        "low": low,
        "high": high,
        "share": float(share.mean()),
        "wilson": wilson_interval(int(share.sum()), count),
        "share_low": float((loudest[:count] >= low).mean()),
        "share_high": float((loudest[:count] >= high).mean()),
    }


def missed(
    injections: Sequence[Injections],
    loudest: np.ndarray,
    limits: dict[str, float],
    geometry: Geometry,
) -> dict[str, Any]:
    """List the missed injections at or above ``LOUD_SNR``.

    Args:
        injections: Injections of all stretches.
        loudest: Statistic of each injection's event, -inf without an event, [n].
        limits: ``threshold``, ``low`` and ``high``, see ``efficiency_at``.
        geometry: Geometry of the network.

    Returns:
        ``mergers``, their number; ``missed``, ``missed_low`` and ``missed_high``, the
        number missed at each threshold; ``wilson``, the binomial interval of the missed
        share (68 %); and ``list``, a row for each missed merger.
    """
    rows, statistics = [], iter(loudest)
    for stretch in injections:
        for index, snr in enumerate(stretch.snrs):
            statistic = float(next(statistics))
            if snr < LOUD_SNR:
                continue
            row = {
                "statistic": statistic if math.isfinite(statistic) else None,
                "snr": float(snr),
                "ifo_snrs": dict(
                    zip(geometry.ifos, map(float, stretch.ifo_snrs[index]), strict=True)
                ),
                "masses": [float(mass) for mass in stretch.masses[index]],
                "glitches": _glitches_near(
                    int(stretch.mergers[index]), stretch.glitches, geometry
                ),
            }
            rows.append((statistic, row))
    scores = np.array([statistic for statistic, _ in rows])
    lost = int((scores < limits["threshold"]).sum())
    return {
        "mergers": len(rows),
        "missed": lost,
        "wilson": wilson_interval(lost, len(rows)),
        "missed_low": int((scores < limits["low"]).sum()),
        "missed_high": int((scores < limits["high"]).sum()),
        "list": [row for score, row in rows if score < limits["threshold"]],
    }


def _glitches_near(
    merger: int, glitches: Sequence[Glitch], geometry: Geometry
) -> list[dict[str, Any]]:
    """Glitches whose centre may be in the same kernel as the merger."""
    return [
        {
            "ifo": geometry.ifos[glitch.ifo],
            "snr": glitch.snr,
            "after": (glitch.center - merger) / geometry.sample_rate,
        }
        for glitch in glitches
        if abs(glitch.center - merger) < geometry.kernel_size
    ]


def window_shares(
    network: Any, recorder: Recorder, settings: WindowSettings, n: int
) -> list[dict[str, Any]]:
    """Efficiency for windows with a merger of ``WINDOW_SNR``, by false-positive rate.

    Args:
        network: Network in evaluation mode.
        recorder: Scores of the slides.
        settings: Settings with the windows' noise curves.
        n: Number of windows for each pair of masses.

    Returns:
        For each kind of noise and each rate: ``limits``, see ``WindowRates.limits``;
        and ``found``, each pair's efficiency at ``threshold``, ``low`` and ``high``.
    """
    geometry = network.geometry
    sources = {
        ifo: SimulatedStretches(ifo, settings.runs, geometry.sample_rate)
        for ifo in geometry.ifos
    }
    validation = Validation(
        network,
        SEED,
        Effort(stretches=WINDOW_STRETCHES, bank_size=2, glitch_bank_size=1),
        OtherNoise(" and ".join(settings.runs), sources),
    )
    validation.maker.set_bank(torch.tensor(MASSES), torch.zeros(len(MASSES), 2))
    scores = [
        validation.window_scores(
            torch.full((n,), index), torch.full((n,), WINDOW_SNR), torch.full((n,), -1)
        )
        for index in range(len(MASSES))
    ]
    result = []
    for kind in recorder.windows:
        rates = recorder.false_positives(kind)
        for rate in RATES:
            limits = rates.limits(rate)
            shares = [
                {
                    name: float((score > limits[name]).double().mean())
                    for name in ("threshold", "low", "high")
                }
                for score in scores
                if limits
            ]
            result.append(
                {"kind": kind, "rate": rate, "limits": limits, "found": shares}
            )
    return result


def judge(network: Any, validation: DeployedValidation, sizes: Sizes) -> dict[str, Any]:
    """Measure all figures of one network.

    Args:
        network: Network that can score slides.
        validation: Validation with the network's kernel.
        sizes: Size of the validation.

    Returns:
        JSON-ready figures.
    """
    began = time.process_time()
    geometry, weights = network.geometry, weights_hash(network)
    network = network.fused()
    recorder = Recorder(geometry, validation.glitches)
    slides = validation.run_slides(network, recorder.add)
    assert slides is not None  # this kind of network has them
    lone = LoneMergers(network)
    loudest = validation.run_injections(network, lone.add)
    rates = {
        name: efficiency_at(loudest, slides, spacing, sizes.injections)
        for name, spacing in SPACINGS.items()
    }
    thresholds = {
        name: figures["threshold"]
        for name, figures in rates.items()
        if "threshold" in figures
    }
    return {
        "weights": weights,
        "livetime": slides.livetime,
        "rates": rates,
        "missed": {
            name: missed(validation.injections, loudest, rates[name], geometry)
            for name in thresholds
        },
        "lone": by_snr(lone.sources, LONE_EDGES, thresholds),
        "glitches": by_snr(recorder.sources(), GLITCH_EDGES, thresholds),
        "windows": recorder.windows,
        "found": window_shares(network, recorder, validation.settings, sizes.windows),
        "time": time.process_time() - began,
    }


def measure(names: Sequence[str], sizes: Sizes, seed: int = SEED) -> dict[str, Any]:
    """Judge networks on the same strain, whitened for the longest kernel.

    Args:
        names: Checkpoints, or names of shipped ones.
        sizes: Size of the validation.
        seed: Random seed.

    Returns:
        JSON-ready figures.

    Raises:
        ConfigurationError: Geometries differ in more than the lengths of kernel and
            periodograms, or the stretches are too short for the slides.
        ModelError: A checkpoint is malformed, or its network cannot score slides.
    """
    torch.set_num_threads(1)
    networks = {name: load_sliding(find_checkpoint(name))[0] for name in names}
    longest = max(
        (network.geometry for network in networks.values()),
        key=lambda geometry: geometry.kernel_length,
    )
    for network in networks.values():
        # All networks get strain whitened with the same periodograms.
        network.geometry = replace(network.geometry, fftlength=longest.fftlength)
        check_kernels(longest, network.geometry)
    began, settings = time.process_time(), population()
    validation = DeployedValidation(
        longest,
        settings,
        seed,
        length=sizes.length,
        stretches=sizes.stretches,
        slides=sizes.slides,
        injections=sizes.injections,
        loud_injections=sizes.loud,
        loud_snr=LOUD_SNR,
        windows=0,
    )
    drawn = time.process_time() - began
    figures = {
        name: judge(network, validation.with_kernel_of(network.geometry), sizes)
        for name, network in networks.items()
    }
    return {
        "seed": seed,
        "sizes": sizes._asdict(),
        "population": {
            key: getattr(settings, key)
            for key in (
                "runs",
                "min_mass",
                "max_mass",
                "max_spin",
                "mass_flattening",
                "last_snr",
                "max_snr",
            )
        },
        "loud_snr": LOUD_SNR,
        "lone_slides": LONE_SLIDES,
        "drawing_time": drawn,
        "networks": figures,
    }


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--network",
    "networks",
    multiple=True,
    default=NETWORKS,
    show_default=True,
    help="Checkpoint, or name of a shipped one; repeat for several.",
)
@click.option(
    "--length",
    type=click.FloatRange(0, min_open=True),
    default=Sizes().length,
    show_default=True,
    help="Length of each detector's background strain, s; more strain has more "
    "independent causes.",
)
@click.option(
    "--stretches",
    type=click.IntRange(1),
    default=Sizes().stretches,
    show_default=True,
    help="Number of stretches of that strain.",
)
@click.option(
    "--slides",
    type=click.IntRange(1),
    default=Sizes().slides,
    show_default=True,
    help="Timeslides of each stretch; the livetime is their number times the length.",
)
@click.option(
    "--injections",
    type=click.IntRange(1),
    default=Sizes().injections,
    show_default=True,
    help="Number of injections from the population.",
)
@click.option(
    "--loud",
    type=click.IntRange(0),
    default=Sizes().loud,
    show_default=True,
    help=f"Number of additional injections above SNR {LOUD_SNR:g}.",
)
@click.option(
    "--windows",
    type=click.IntRange(1),
    default=Sizes().windows,
    show_default=True,
    help=f"Number of windows of SNR {WINDOW_SNR:g} for each pair of masses.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=SEED,
    show_default=True,
    help="Random seed.",
)
def main(folder: Path, networks: tuple[str, ...], seed: int, **sizes: Any) -> None:
    """Judge networks as in a search; write FOLDER/deployed.json and .md."""
    result = measure(networks, Sizes(**sizes), seed)
    text = report(result)
    for suffix, content in (("json", json.dumps(result, indent=2)), ("md", text)):
        with replacing(folder / f"deployed.{suffix}") as temporary:
            temporary.write_text(content.rstrip() + "\n")
    click.echo(text)


if __name__ == "__main__":
    main()

"""Distance in a mock data challenge: ``python -m benchmarks.challenge FOLDER``.

Imitates the first data set of the machine-learning mock data challenge (Schaefer et al.
2023, arXiv:2209.11146, and its code, gwastro/ml-mock-data-challenge-1) with the
project's own simulation:

- Gaussian noise with the design curve aLIGOZeroDetHighPower in H1 and L1;
- mergers without spins, masses uniform from 10 to 50 solar masses in the detector
  frame, isotropic sky positions and orientations, no cosmology;
- chirp distances ``d_c`` with the density ``d_c^2``, from 130 to 350 Mpc; the distance
  is ``d_c (M_c / M_0)^(5/6)``, with ``M_0`` the chirp mass of two 1.4 solar masses;
- one merger every 24 to 30 s, found if an event is within 0.3 s of it.

The waveform is IMRPhenomD; the challenge's is IMRPhenomXPHM with the (2, 2) mode only.

Three methods differ, but not the quantity that they estimate. False alarms are counted
in timeslides (``benchmarks.pairs``) instead of 30 days of zero-lag noise. Mergers with
a network SNR below 4 are counted as missed without being injected. Besides the
challenge's estimate of the sensitive volume, there is one with a control variate, with
the same expectation and a smaller error. The control variate is a search that finds
exactly the mergers above an SNR; its volume is an integral (``Ideal``).

Writes ``FOLDER/challenge.json`` and ``.md``.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
import lalsimulation
import numpy as np
import torch

from benchmarks.markdown import lay_out
from benchmarks.pairs import (
    PairEvents,
    Repository,
    lost_events,
    score_all,
    score_loud,
)
from chirpwatch.background import Background
from chirpwatch.efficiency import match_injections
from chirpwatch.geometry import Geometry
from chirpwatch.strain import NANOSECONDS
from chirpwatch.streamer.options import SHIPPED
from chirpwatch.train.data.noise.curves import (
    MAX_FREQUENCY,
    SPACING,
)
from chirpwatch.train.data.noise.spectra import coloured_noise
from chirpwatch.train.data.signals.injections import (
    Columns,
    project,
    rejection_batches,
)
from chirpwatch.train.data.signals.population import (
    InjectionSettings,
    draw_masses,
)
from chirpwatch.train.data.signals.waveforms import (
    MIN_FREQUENCY,
    antenna_amplitudes,
    chirp_mass,
    face_on_amplitudes,
    face_on_waveforms,
    sky,
)
from chirpwatch.units import JULIAN_YEAR

MONTH = 30 * 86_400.0
"""Length of the challenge's noise, s."""

RATES = (1000, 100, 10, 1)
"""False-alarm rates, per month."""

FLOOR_RATE = 150
"""False-alarm rate, per month, up to which only loud pairs of kernels are scored."""

MASSES = (10.0, 50.0)
"""Range of the component masses, solar masses."""

CHIRP_DISTANCES = (130.0, 350.0)
"""Range of the chirp distance, Mpc."""

REFERENCE_CHIRP_MASS = 1.4 / 2**0.2
"""Chirp mass of two 1.4 solar masses."""

SPACING_LENGTHS = (24.0, 30.0)
"""Range of the time between mergers, s."""

WINDOW = 0.3
"""Largest time between a merger and its event, s."""

MIN_SNR = 4.0
"""Smallest network SNR above 20 Hz of a merger that is injected."""

STRETCH_LENGTH = 1024
"""Length of a stretch of noise, s."""

COMPLETE_LIVETIME = MONTH / 2
"""Livetime of the slides in which every kernel is scored, s."""

SIGNAL_LENGTH, MERGER_LENGTH = 8.0, 7.5
"""Length of a signal and time of its merger, s; the lightest takes 6 s from 20 Hz."""

FIRST_LENGTH = 24.0
"""Time of a stretch's first merger, s."""

BATCH = 64
"""Mergers that are projected at once."""

WAVEFORM_DISTANCE = 100.0
"""Distance at which waveforms are generated, Mpc."""

LOWEST_NOISE = 9.0
"""Frequency below which the curve is constant, Hz; the challenge's noise ends there."""

REFERENCES = {
    "first version": {100: 2818, 10: 2678, 1: 2547},
    "best published": {100: 2897, 10: 2772, 1: 2632},
}
"""Published distances in the challenge's own data, by false alarms per month, Mpc."""


@cache
def design_curve() -> np.ndarray:
    """The curve aLIGOZeroDetHighPower, 1/sqrt(Hz), at 0, 0.5, …, 1024 Hz."""
    frequencies = np.arange(0, MAX_FREQUENCY + SPACING / 2, SPACING)
    return np.sqrt(
        [
            lalsimulation.SimNoisePSDaLIGOZeroDetHighPower(max(frequency, LOWEST_NOISE))
            for frequency in frequencies
        ]
    )


def face_on_snrs(
    mass_1: torch.Tensor, mass_2: torch.Tensor, lowest: Sequence[float]
) -> np.ndarray:
    """Optimal SNR of face-on mergers overhead a detector, at 1 Mpc.

    Args:
        mass_1: Heavier mass, solar masses, [n].
        mass_2: Lighter mass, solar masses, [n].
        lowest: Low-frequency cutoffs of the SNR, whole Hz, [k].

    Returns:
        SNR, [k, n].
    """
    # Centres of bins of 1 Hz.
    frequencies = np.arange(min(lowest), MAX_FREQUENCY) + 0.5
    grid = np.arange(0, MAX_FREQUENCY + SPACING / 2, SPACING)
    asd = np.interp(frequencies, grid, design_curve())
    zeros = torch.zeros(len(mass_1), dtype=torch.float64)
    amplitudes = face_on_amplitudes(
        mass_1, mass_2, zeros, zeros, torch.from_numpy(frequencies)
    )
    power = (2 * WAVEFORM_DISTANCE * amplitudes.numpy() / asd) ** 2
    return np.sqrt([power[:, frequencies > cutoff].sum(1) for cutoff in lowest])


def antenna_factors(angles: Columns, ifos: tuple[str, ...]) -> np.ndarray:
    """Network SNR relative to a face-on merger overhead a single detector, [n]."""
    power = antenna_amplitudes(angles, ifos).abs().square().sum(1)
    factors: np.ndarray = power.double().sqrt().numpy()
    return factors


def distance_limits(chirp_masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest distance at each chirp mass, Mpc."""
    scale = (chirp_masses / REFERENCE_CHIRP_MASS) ** (5 / 6)
    low, high = CHIRP_DISTANCES
    return low * scale, high * scale


def draw(n: int, geometry: Geometry) -> Columns:
    """Draw the challenge's mergers.

    Returns:
        Columns [n]: masses, angles, ``distance`` (Mpc), and the network SNRs ``snr``,
        above 20 Hz, and ``seen_snr``, above the analysis's highpass.
    """
    settings = InjectionSettings(
        min_mass=MASSES[0], max_mass=MASSES[1], reference_share=0
    )
    mass_1, mass_2 = (mass.double() for mass in draw_masses(n, settings))
    angles = sky(n)
    # The density d^2 makes the cube uniform.
    low, high = (distance**3 for distance in CHIRP_DISTANCES)
    cubes = low + (high - low) * torch.rand(n, dtype=torch.float64)
    scale = (chirp_mass(mass_1, mass_2) / REFERENCE_CHIRP_MASS) ** (5 / 6)
    distance = cubes ** (1 / 3) * scale
    factors = antenna_factors(angles, geometry.ifos) / distance.numpy()
    lowest = (MIN_FREQUENCY, geometry.highpass)
    snr, seen_snr = torch.from_numpy(face_on_snrs(mass_1, mass_2, lowest) * factors)
    return angles | {
        "mass_1": mass_1,
        "mass_2": mass_2,
        "distance": distance,
        "snr": snr,
        "seen_snr": seen_snr,
    }


def weights(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Volume that a found merger contributes to the challenge's mean, Mpc^3, [n].

    The ball to the largest distance, which grows with the chirp mass to the power 5/6.
    """
    masses = chirp_mass(columns["mass_1"], columns["mass_2"])
    volumes: np.ndarray = 4 / 3 * math.pi * distance_limits(masses)[1] ** 3
    return volumes


def radius(volume: float) -> float:
    """Radius of a ball of ``volume`` Mpc^3, Mpc."""
    return float(np.cbrt(3 * volume / (4 * math.pi)))


class Ideal:
    """A search that finds exactly the mergers above an SNR threshold.

    The expectation of the challenge's estimate is an integral over masses, antenna
    factors and distances; that over distances is in closed form.

    Args:
        ifos: Detectors.
        lowest: Low-frequency cutoff of the SNR, Hz.
        masses: Grid points in each component mass.
        factors: Grid points in the antenna factor, means of 256 sorted draws each.
    """

    def __init__(
        self,
        ifos: tuple[str, ...],
        lowest: float,
        masses: int = 12,
        factors: int = 2000,
    ) -> None:
        low, high = MASSES
        points = low + (high - low) * (np.arange(masses) + 0.5) / masses
        mass_1, mass_2 = (axis.ravel() for axis in np.meshgrid(points, points))
        ordered = mass_1 >= mass_2
        self.mass_1, self.mass_2 = mass_1[ordered], mass_2[ordered]
        # Pairs off the diagonal stand for both orders of the masses.
        share = np.where(self.mass_1 == self.mass_2, 1.0, 2.0)
        self.share = share / share.sum()
        self.snrs = face_on_snrs(
            torch.from_numpy(self.mass_1), torch.from_numpy(self.mass_2), [lowest]
        )[0]
        drawn = np.sort(antenna_factors(sky(256 * factors), ifos))
        self.factors = drawn.reshape(factors, -1).mean(1)
        masses_c = chirp_mass(self.mass_1, self.mass_2)
        self.nearest, self.farthest = distance_limits(masses_c)

    def volume(self, threshold: float) -> float:
        """Expectation of the challenge's estimate of the volume, Mpc^3."""
        horizons = self.snrs[:, None] * self.factors / threshold
        near, far = self.nearest[:, None] ** 3, self.farthest[:, None] ** 3
        found = (np.clip(horizons**3, near, far) - near) / (far - near)
        balls = 4 / 3 * math.pi * self.farthest**3
        return float((self.share * balls * found.mean(1)).sum())


@dataclass(frozen=True, eq=False)
class Foreground:
    """Result of the search on mergers.

    Attributes:
        columns: Parameters of all mergers drawn, each [n].
        statistics: Statistic of each merger's event; -inf without an event, and for
            mergers that were not injected, [n].
        injected: Number of mergers injected.
        livetime: Length of the strain with injections, s.
    """

    columns: dict[str, np.ndarray]
    statistics: np.ndarray
    injected: int
    livetime: float


def inject(
    repository: Repository, mergers: Columns, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Add mergers to noise, and search it.

    Returns:
        Statistic of each merger's event, -inf without an event, [n]; and the length of
        the strain searched, s.
    """
    statistics = []
    length = 0
    for columns in _stretches(mergers, rng):
        strain = noise(repository.geometry, rng)
        times = columns.pop("time").numpy()
        for begin in range(0, len(times), BATCH):
            batch = slice(begin, begin + BATCH)
            rows = {name: column[batch] for name, column in columns.items()}
            add_mergers(strain, rows, times[batch], repository.geometry)
        statistics.append(search(repository, strain, times))
        length += STRETCH_LENGTH
    return np.concatenate(statistics), float(length)


def _stretches(mergers: Columns, rng: np.random.Generator) -> Iterator[Columns]:
    """Divide mergers among stretches, and draw their times.

    Yields:
        Columns of a stretch's mergers, with their ``time``, s from its start.
    """
    count, begin = len(mergers["distance"]), 0
    while begin < count:
        spacings = rng.uniform(*SPACING_LENGTHS, STRETCH_LENGTH)
        times = FIRST_LENGTH + np.cumsum(spacings) - spacings[0]
        # Keep away from the end, where an event would be incomplete.
        times = times[times < STRETCH_LENGTH - FIRST_LENGTH][: count - begin]
        batch = slice(begin, begin + len(times))
        columns = {name: column[batch] for name, column in mergers.items()}
        yield columns | {"time": torch.from_numpy(times)}
        begin += len(times)


def noise(geometry: Geometry, rng: np.random.Generator) -> np.ndarray:
    """Draw a stretch of noise, float64, [ifos, size]."""
    rate = geometry.sample_rate
    asd = design_curve()[: rate + 1]
    size = STRETCH_LENGTH * rate
    return np.stack([coloured_noise(asd, size, rate, rng) for _ in geometry.ifos])


def add_mergers(
    strain: np.ndarray, mergers: Columns, times: np.ndarray, geometry: Geometry
) -> None:
    """Add mergers to strain, in place.

    Args:
        strain: Strain, [ifos, size].
        mergers: Columns [n], see ``draw``.
        times: Arrival times in the first detector, s from the start, [n]; rounded to
            whole samples.
        geometry: Geometry of the analysis.
    """
    rate = geometry.sample_rate
    size, merger_size = round(SIGNAL_LENGTH * rate), round(MERGER_LENGTH * rate)
    zeros = torch.zeros(len(times), dtype=torch.float64)
    waveforms = face_on_waveforms(
        mergers["mass_1"], mergers["mass_2"], zeros, zeros, size, merger_size, rate
    )
    waveforms = waveforms * (WAVEFORM_DISTANCE / mergers["distance"])[:, None]
    signals = project(waveforms, mergers, geometry.ifos, rate)[0].numpy()
    starts = np.rint(times * rate).astype(int) - merger_size
    for start, signal in zip(starts, signals, strict=True):
        strain[:, start : start + size] += signal


def search(repository: Repository, strain: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Search strain for mergers.

    Args:
        repository: Models.
        strain: Strain, [ifos, size].
        times: Times of the mergers, s from the start, [n].

    Returns:
        Statistic of each merger's event; -inf if it was missed, [n].
    """
    frames = repository.frames(strain)
    outputs = ["peak", "peak_stride", "peak_delay", "peak_is_event"]
    peak, stride, delay, event = (
        output[0] for output in repository.score_slides(frames, [0], outputs)
    )
    event_times = (stride + 1) * repository.geometry.stride_length - delay
    matched = match_injections(
        (times * NANOSECONDS).astype(np.int64),
        (event_times[event] * NANOSECONDS).astype(np.int64),
        peak[event],
        WINDOW,
    )
    statistics: np.ndarray = np.append(peak[event], -np.inf)[matched]
    return statistics


def simulate_foreground(repository: Repository, count: int, seed: int) -> Foreground:
    """Draw mergers until ``count`` are above ``MIN_SNR``; inject these and search."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        batches = list(
            rejection_batches(
                lambda n: draw(n, repository.geometry), count, MIN_SNR, 256
            )
        )
    loud, faint = (
        {
            name: torch.cat([batch[part][name] for batch in batches])
            for name in batches[0][0]
        }
        for part in (0, 1)
    )
    rng = np.random.default_rng([seed, 1])
    statistics, livetime = inject(repository, loud, rng)
    missed = np.full(len(faint["snr"]), -np.inf)
    return Foreground(
        {name: torch.cat([loud[name], faint[name]]).numpy() for name in loud},
        np.concatenate([statistics, missed]),
        count,
        livetime,
    )


@dataclass(frozen=True)
class Estimate:
    """A sensitive distance.

    Attributes:
        distance: Sensitive distance, Mpc.
        error: Standard error from the number of mergers, Mpc.
    """

    distance: float
    error: float


def estimate(values: np.ndarray, control: float = 0.0) -> Estimate:
    """Estimate the sensitive distance from the mean of volumes.

    Args:
        values: Volume of each merger, or its difference to the control variate, Mpc^3,
            [n].
        control: Expectation of the control variate, Mpc^3.
    """
    volume = control + float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    distance = radius(volume)
    return Estimate(distance, distance * error / (3 * volume))


def controlled(
    foreground: Foreground, threshold: float, ideal: Ideal
) -> tuple[Estimate, float]:
    """Estimate the distance with the control variate of the smallest variance.

    Args:
        foreground: Result of the search on mergers.
        threshold: Smallest statistic of a found merger.
        ideal: Ideal search by ``seen_snr``.

    Returns:
        The estimate, and the SNR threshold of the ideal search.
    """
    balls, snrs = weights(foreground.columns), foreground.columns["seen_snr"]
    found = foreground.statistics >= threshold
    thresholds = np.arange(5, 12, 0.1)
    differences = [balls * (found * 1.0 - (snrs >= snr)) for snr in thresholds]
    best = int(np.argmin([difference.var() for difference in differences]))
    snr = float(thresholds[best])
    return estimate(differences[best], ideal.volume(snr)), snr


def measure_rate(
    rate: int,
    events: PairEvents,
    stretches: int,
    foreground: Foreground,
    ideal: Ideal,
    geometry: Geometry,
) -> dict[str, Any]:
    """Estimate the distance at a false-alarm rate, JSON-ready.

    ``background_interval`` gives the distances at the thresholds for a false-alarm rate
    one standard error lower and higher.

    Args:
        rate: False alarms per month.
        events: Events of the background.
        stretches: Number of stretches of the background.
        foreground: Result of the search on mergers.
        ideal: Ideal search by ``seen_snr``.
        geometry: Geometry of the analysis.
    """
    background = Background.of(events.statistics, events.livetime)
    threshold = background.threshold_at_far(rate / MONTH * JULIAN_YEAR)
    count = background.count(threshold)
    error = events.rate_error(threshold, stretches) if count else math.inf
    ranks = [count * math.exp(sign * error) for sign in (-1, 1)]
    limits = [
        background.at_rank(round(min(max(rank, 1), background.size))) for rank in ranks
    ]
    plain = weights(foreground.columns) * (foreground.statistics >= threshold)
    challenge = estimate(plain)
    best, snr = controlled(foreground, threshold, ideal)
    ends = [controlled(foreground, limit, ideal)[0].distance for limit in limits]
    return {
        "false_alarms_a_month": rate,
        "threshold": threshold,
        "events": count,
        "causes": events.slides(geometry).causes(threshold),
        "rate_error": error,
        "livetime": events.livetime,
        "found": int((foreground.statistics >= threshold).sum()),
        "distance": best.distance,
        "injections_error": best.error,
        "background_interval": sorted(ends),
        "control_snr": snr,
        "challenge_distance": challenge.distance,
        "challenge_error": challenge.error,
    }


def measure(path: Path, injections: int, stretches: int, seed: int) -> dict[str, Any]:
    """Simulate background and mergers, search them, and estimate distances, JSON-ready.

    Args:
        path: Model repository.
        injections: Number of mergers to inject.
        stretches: Number of stretches of background.
        seed: Random seed.
    """
    begin = time.process_time()
    repository = Repository(path)
    geometry = repository.geometry
    rng = np.random.default_rng([seed, 0])
    frames = [repository.frames(noise(geometry, rng)) for _ in range(stretches)]
    complete = score_all(repository, frames, COMPLETE_LIVETIME)
    quiet = Background.of(complete.statistics, complete.livetime)
    floor = quiet.threshold_at_far(FLOOR_RATE / MONTH * JULIAN_YEAR)
    loud = score_loud(repository, frames, floor)
    del frames
    foreground = simulate_foreground(repository, injections, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        seen, entire = (
            Ideal(geometry.ifos, lowest)
            for lowest in (geometry.highpass, MIN_FREQUENCY)
        )
    expected, lost = lost_events(complete, loud, floor)
    return {
        "model": repository.digest,
        "seed": seed,
        "geometry": json.loads(geometry.to_json()),
        "draws": len(foreground.statistics),
        "injections": injections,
        "min_snr": MIN_SNR,
        "injections_livetime": foreground.livetime,
        "noise_length": stretches * STRETCH_LENGTH,
        "floor": floor,
        "events_above_floor": expected,
        "events_lost": lost,
        "ideal_at_snr_8": {
            "20": radius(entire.volume(8.0)),
            f"{geometry.highpass:g}": radius(seen.volume(8.0)),
        },
        "rates": [
            measure_rate(
                rate,
                complete if rate > FLOOR_RATE else loud,
                stretches,
                foreground,
                seen,
                geometry,
            )
            for rate in RATES
        ],
        "references": REFERENCES,
        "processor_seconds": time.process_time() - begin,
    }


def table(result: dict[str, Any]) -> str:
    """Format ``measure``'s figures as Markdown."""
    names = list(REFERENCES)
    heads = ["False alarms a month", "distance, Mpc", "challenge's estimate, Mpc"]
    heads += ["events (causes)", "found", *names]
    rows = []
    for figures in result["rates"]:
        rate = figures["false_alarms_a_month"]
        low, high = figures["background_interval"]
        others = [str(REFERENCES[name].get(rate, "n/a")) for name in names]
        rows.append(
            [
                f"{rate}",
                f"{figures['distance']:.0f} ± {figures['injections_error']:.0f} "
                f"({low:.0f} to {high:.0f})",
                f"{figures['challenge_distance']:.0f} ± "
                f"{figures['challenge_error']:.0f}",
                f"{figures['events']} ({figures['causes']})",
                f"{figures['found']}",
                *others,
            ]
        )
    ideal = ", ".join(
        f"{distance:.0f} Mpc above {lowest} Hz"
        for lowest, distance in result["ideal_at_snr_8"].items()
    )
    months = result["rates"][-1]["livetime"] / MONTH
    return "\n".join(
        [
            lay_out(heads, rows),
            f"{result['draws']} mergers were drawn; the {result['injections']} with a "
            f"network SNR of at least {result['min_snr']:g} were injected. Background: "
            f"{result['noise_length']} s of noise in each detector, timeslides of "
            f"{months:.1f} months. Errors are standard errors from the number of "
            "mergers; in brackets, the distances for a false-alarm rate one standard "
            "error higher or lower, from its scatter between stretches. The "
            f"preselection lost {result['events_lost']} of "
            f"{result['events_above_floor']} events. A search that finds exactly the "
            f"mergers above SNR 8 reaches {ideal}.",
            "",
        ]
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--repository",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=SHIPPED,
    show_default=True,
    help="Model repository.",
)
@click.option(
    "--injections", default=1500, show_default=True, help="Number of mergers."
)
@click.option(
    "--stretches",
    default=20,
    show_default=True,
    help="Number of background stretches of 1024 s.",
)
@click.option("--seed", default=1, show_default=True, help="Random seed.")
def main(
    folder: Path, repository: Path, injections: int, stretches: int, seed: int
) -> None:
    """Measure the sensitive distance of an exported model."""
    torch.set_num_threads(1)
    result = measure(repository, injections, stretches, seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "challenge.json").write_text(json.dumps(result, indent=2) + "\n")
    text = table(result)
    (folder / "challenge.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
